"""The worker of every family: its app, and the options it runs Celery with."""

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

from cluster import resources, settings
from cluster.app import App, create
from cluster.connections.broker import UNREACHABLE_ERRORS
from cluster.connections.rabbitmq import DeadLetters
from cluster.families import BadTable
from cluster.heartbeat import Heartbeat, hang_timeout

#: The only arguments of a worker.
SOLO = ["--pool", "solo"]


def worker_app(family: str) -> App:
    """Return a family's app for workers: with its tasks, and bootsteps added to Celery's."""
    app = create(family, include=[f"{family}.tasks"])
    app.steps["consumer"].update((Heartbeat, DeadLetters))

    def prepare(**_: Any) -> None:
        # In a thread: Celery's prefork kills a process that is not up after four seconds.
        Thread(target=_prepare, args=(app,), daemon=True).start()

    worker_process_init.connect(prepare, weak=False)
    return app


def _prepare(app: App) -> None:
    """Prepare a pool process, so that its first job is not slower than the others.

    It connects to the result store, and to the broker, which the last job of a chord publishes to.
    """
    backend: Any = app.backend
    with suppress(OSError, RedisError, *UNREACHABLE_ERRORS):
        backend.client.ping()
        with app.producer_or_acquire() as producer:
            producer.maybe_declare(app.amqp.queues[app.main])
        app.submission.warm_up(app.main)


def run(app: Celery[Any]) -> None:
    """Run the worker until a signal stops it; raise SystemExit with its exit status.

    With `--pool solo` it runs jobs in this process, one at a time: `breakpoint()` works in a task.
    """
    if sys.argv[1:] not in ([], SOLO):
        sys.stderr.write(
            f"error: the worker of {app.main} takes no arguments but {' '.join(SOLO)}: its "
            "settings are environment variables, see .env.example\n"
        )
        sys.exit(2)
    try:
        chosen = options(app)
        if sys.argv[1:] == SOLO:
            # A debugger needs the terminal, which Celery would replace by its log.
            chosen |= {"pool": "solo", "concurrency": 1, "redirect_stdouts": False}
        hang_timeout()
        resources.share_cores(concurrency(app), os.environ)  # before the tasks load numpy
    except (ValueError, SyntaxError) as error:  # found when celeryconfig is loaded
        sys.exit(f"error: {error}")
    configured = _configured_concurrency(app)
    if configured > concurrency(app) and "pool" not in chosen:
        sys.stderr.write(
            f"warning: {app.main} runs {concurrency(app)} jobs at a time, one per core, instead of "
            f"{configured}; if its jobs mostly wait, say so by `concurrency` in its row "
            f"({app.conf.families.row(app.main).where})\n"
        )
    try:
        sys.exit(_run(app, chosen))
    except SyntaxError as error:  # of its tasks
        sys.exit(f"error: {error.filename}, line {error.lineno}: {error.msg}")


def _run(app: Celery[Any], chosen: dict[str, Any]) -> Any:
    """Run Celery's worker until it stops, and return its exit status.

    `worker_main` would load all of Celery's commands first, a third of the start-up time.
    """
    # Celery collects garbage before each fork. Scanning the loaded modules would take longer than
    # the fork itself, and copy pages that the processes share.
    gc.disable()
    try:
        app.conf.families.check_tasks(app.main, app)
    except BadTable as error:
        sys.exit(f"error: {error}")
    worker: Any = app.Worker(**chosen)
    gc.freeze()
    gc.enable()
    worker.start()
    return worker.exitcode


def options(app: Celery[Any]) -> dict[str, Any]:
    """Return the options of Celery's worker for a family's app.

    The host name is unique among replicas on all machines, as remote control requires. Gossip
    and mingle are off: nothing here uses them, and they delay each start by a second.
    """
    family = app.main
    return {
        "quiet": True,  # no banner: the log begins with the same information
        "queues": [family],
        "hostname": f"{family}@{socket.gethostname()}.{os.getpid()}",
        "concurrency": concurrency(app),
        "loglevel": settings.log_level(),
        "no_color": bool(os.environ.get("NO_COLOR")),
        "without_gossip": True,
        "without_mingle": True,
    }


def concurrency(app: Celery[Any]) -> int:
    """Return the number of jobs that a family's worker runs at a time.

    At most one per core for a family whose row has no concurrency: its jobs compute, and more of
    them would only slow each other down.
    """
    if app.conf.families.row(app.main).concurrency:
        return _configured_concurrency(app)
    return min(_configured_concurrency(app), resources.cores())


def _configured_concurrency(app: Celery[Any]) -> int:
    default = app.conf.families.row(app.main).concurrency or 1
    return settings.integer(
        f"{app.main.upper()}_CONCURRENCY", default, maximum=settings.MAX_PROCESSES
    )
