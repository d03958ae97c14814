"""How a worker of any family runs: its app, and its command line, written once."""

import os
import socket
from typing import Any

from celery import Celery

from cluster import limits
from cluster.app import create
from cluster.health import Heartbeat
from cluster.lease import Lease

#: Jobs a worker runs side by side where <FAMILY>_CONCURRENCY says nothing.
CONCURRENCY = 2


def worker_app(family: str) -> Celery:
    """Return the worker app of a family: its tasks, a heartbeat and leases on its jobs."""
    app = create(family, include=[f"{family}.tasks"])
    app.steps["consumer"].update((Heartbeat, Lease))
    return app


def run(app: Celery[Any]) -> None:
    """Run the worker until a signal stops it; raises SystemExit with its exit status."""
    app.worker_main(arguments(app.main))


def arguments(family: str) -> list[str]:
    """Return the arguments of Celery's worker command for a family.

    The name is unique among replicas on any number of machines, as remote control needs.
    Gossip and mingle are left out: no setting uses them, and they cost each start a second.
    """
    concurrency = limits.setting(f"{family.upper()}_CONCURRENCY", CONCURRENCY)
    return [
        "worker",
        f"--queues={family}",
        f"--hostname={family}@{socket.gethostname()}.{os.getpid()}",
        f"--concurrency={concurrency}",
        f"--loglevel={os.environ.get('LOG_LEVEL', 'INFO')}",
        "--without-gossip",
        "--without-mingle",
    ]
