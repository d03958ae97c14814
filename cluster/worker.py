"""How a worker of any family runs: its app, and Celery's options, written once."""

import gc
import os
import socket
import sys
from contextlib import suppress
from threading import Thread
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from redis.exceptions import RedisError

from celery_streams.worker.started import Started
from cluster import resources, settings
from cluster.app import App, create
from cluster.broker import AWAY
from cluster.heartbeat import Heartbeat, hang_timeout
from cluster.rabbitmq import DeadLetters


def worker_app(family: str) -> App:
    """Return the worker app of a family: its tasks, and its steps beyond Celery's."""
    app = create(family, include=[f"{family}.tasks"])
    app.steps["consumer"].update((Heartbeat, Started, DeadLetters))

    def prepare(**_: Any) -> None:
        # Not to be waited for: Celery ends a process that is not up after four seconds.
        Thread(target=_prepare, args=(app,), daemon=True).start()

    worker_process_init.connect(prepare, weak=False)
    return app


def _prepare(app: App) -> None:
    """Prepare a pool process for its first job, which pays for it else.

    It connects to the result store, and to the broker: the last job of a chord sends the callback.
    """
    backend: Any = app.backend
    with suppress(OSError, RedisError, *AWAY):
        backend.client.ping()
        with app.producer_or_acquire() as producer:
            producer.maybe_declare(app.amqp.queues[app.main])
        app.submission.rehearse(app.main)


def run(app: Celery[Any]) -> None:
    """Run the worker until a signal stops it; raises SystemExit with its exit status."""
    try:
        chosen = options(app)
        hang_timeout()
        resources.share_cores(concurrency(app), os.environ)  # before the tasks load numpy
    except ValueError as error:  # a setting that is wrong, found as celeryconfig is loaded
        sys.exit(f"error: {error}")
    wanted = _wanted(app)
    if wanted > concurrency(app):
        sys.stderr.write(
            f"warning: {app.main} runs {concurrency(app)} jobs side by side, as many as there are "
            f"cores, not {wanted}; jobs that wait more than they compute get a line in "
            "family_concurrency of celeryconfig.py\n"
        )
    sys.exit(_run(app, chosen))


def _run(app: Celery[Any], chosen: dict[str, Any]) -> Any:
    """Run Celery's worker to its end, and return its exit status.

    Not by `worker_main`, which loads all of Celery's commands first: a third of a worker's start.
    """
    # What is loaded stays for good. Celery collects garbage before each fork, and to look for some
    # among all that takes ten times as long as the fork, and unshares the memory.
    gc.disable()
    worker: Any = app.Worker(**chosen)
    gc.freeze()
    gc.enable()
    worker.start()
    return worker.exitcode


def options(app: Celery[Any]) -> dict[str, Any]:
    """Return the options of Celery's worker for a family's app.

    The name is unique among replicas on any number of machines, as remote control needs.
    Gossip and mingle are left out: no setting uses them, and they cost each start a second.
    """
    family = app.main
    return {
        "quiet": True,  # no banner: what it tells, the log's first lines and .env.example do
        "queues": [family],
        "hostname": f"{family}@{socket.gethostname()}.{os.getpid()}",
        "concurrency": concurrency(app),
        "loglevel": settings.log_level(),
        "no_color": bool(os.environ.get("NO_COLOR")),
        "without_gossip": True,
        "without_mingle": True,
    }


def concurrency(app: Celery[Any]) -> int:
    """Return how many jobs a family's worker runs side by side.

    At most one a core for a family that celeryconfig does not name: its jobs compute, and
    more of them would only be in each other's way.
    """
    if app.main in app.conf.family_concurrency:
        return _wanted(app)
    return min(_wanted(app), resources.cores())


def _wanted(app: Celery[Any]) -> int:
    usual = app.conf.family_concurrency.get(app.main, 1)
    return settings.integer(f"{app.main.upper()}_CONCURRENCY", usual, most=settings.MAX_PROCESSES)
