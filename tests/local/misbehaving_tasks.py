"""Tasks that do what none should."""

import os
import signal
import time
from typing import Any

from celery import shared_task

from cluster.task import Request, Task


class TooLargeToStore:
    """A result that needs more memory than there is, just when it is stored."""

    def __json__(self) -> Any:
        raise MemoryError("while storing")


@shared_task
def out_of_memory() -> None:
    """Fail to allocate."""
    raise MemoryError("in the task")


@shared_task
def out_of_memory_in_numpy() -> None:
    """Fail to allocate in numpy, whose error callers do not have."""
    import numpy as np

    np.ones((2**40, 2**10))


@shared_task
def result_too_large() -> Any:
    """Return what cannot be stored."""
    return TooLargeToStore()


class FailsAfterwards(Task):
    """A task whose clean-up fails to allocate."""

    def after_return(self, *_: object) -> None:
        """Fail to allocate."""
        raise MemoryError("after the task")


@shared_task(base=FailsAfterwards)
def out_of_memory_afterwards() -> str:
    """Return a value, and fail to allocate after it is stored."""
    return "stored"


class EndsTheWorker(Request):
    """A delivery that ends the worker's main process before its job begins."""

    def __init__(self, *_: object, **options: object) -> None:
        raise MemoryError("in the main process")


class Poison(Task):
    """A task whose messages end the worker's main process."""

    Request = f"{__name__}:{EndsTheWorker.__name__}"


@shared_task(base=Poison)
def end_the_worker() -> None:
    """Never begin."""


@shared_task
def kill_the_process() -> None:
    """End the pool process that runs this, each time."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def recurse(n: int) -> int:
    """Return 2**(1000 n), calling itself as plain Python."""
    return 2**1000 * recurse(n - 1) if n else 1


@shared_task
def error_of_the_client() -> None:
    """Raise what the client takes for a broken connection, were it not the job's own."""
    raise RuntimeError("the job's own")


@shared_task
def too_slow() -> None:
    """Run for longer than the configuration allows: see `misbehaving_worker`."""
    time.sleep(60)


@shared_task
def too_slow_softly() -> None:
    """Run for longer than the configuration's soft limit allows."""
    time.sleep(60)
