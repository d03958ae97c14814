"""Two workers of one program: one with our pool, one with Celery's prefork."""

import socket
from contextlib import suppress
from typing import Any

import redis
from kombu.exceptions import OperationalError

from tests.support.programs import OURS

#: The two queues, each with a worker, and the pools of these.
POOLS = {"ours": OURS, "stock": "prefork"}
#: What a worker names its pool.
IMPLEMENTATIONS = {
    "ours": "celery_streams.worker.pool:TaskPool",
    "stock": "celery.concurrency.prefork:TaskPool",
}
#: The module of the program.
Twins = Any


def answers(twins: Twins, worker: str) -> bool:
    """Return True if a worker answers; an earlier test may have closed our connections."""
    with suppress(redis.ConnectionError, OperationalError):
        return bool(twins.app.control.ping([worker], timeout=0.3))
    return False


def signature(twins: Twins, queue: str, name: str, *args: Any, **options: Any) -> Any:
    """Return a job for one of the workers, from a caller that does not know the task's limits."""
    unlimited = {"time_limit": None, "soft_time_limit": None}
    return twins.app.signature(name, args, **options).set(queue=queue, **unlimited)


def worker_of(twins: Twins, queue: str) -> str:
    """Return the name of one of the workers."""
    return f"{queue}@{socket.gethostname()}"
