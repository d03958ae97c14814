"""Tasks that misbehave."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import chain, group, shared_task

from callers.client import Client
from celery_streams.worker.request import Request
from cluster.task import Task


class TooLargeToStore:
    """A result that runs out of memory when it is stored."""

    def __json__(self) -> Any:
        raise MemoryError("while storing")


@shared_task
def out_of_memory() -> None:
    """Fail to allocate."""
    raise MemoryError("in the task")


@shared_task
def out_of_memory_in_numpy() -> None:
    """Fail to allocate in numpy, whose error class callers do not have."""
    import numpy as np

    np.ones((2**40, 2**10))


@shared_task
def result_too_large() -> Any:
    """Return a value that cannot be stored."""
    return TooLargeToStore()


class FailsAfterwards(Task):
    """A task whose clean-up fails to allocate."""

    def after_return(self, *_: object) -> None:
        """Fail to allocate."""
        raise MemoryError("after the task")


@shared_task(base=FailsAfterwards)
def out_of_memory_afterwards() -> str:
    """Return a value, then fail to allocate after it is stored."""
    return "stored"


class NoRequest(Request):
    """A request that ends its process before its job begins."""

    def __init__(self, *_: object, **options: object) -> None:
        raise MemoryError("before the job begins")


class Poison(Task):
    """A task whose messages end the process that reads them."""

    Request = f"{__name__}:{NoRequest.__name__}"


@shared_task(base=Poison)
def no_request() -> None:
    """Do nothing: it never begins."""


@shared_task
def kill_the_process() -> None:
    """End the pool process each time."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def recurse(n: int) -> int:
    """Return 2**(1000 n), calling itself as plain Python."""
    return 2**1000 * recurse(n - 1) if n else 1


@shared_task
def error_of_the_client() -> None:
    """Raise an error that the client treats as a broken connection unless it is the job's."""
    raise RuntimeError("the job's own")


@shared_task
def too_slow() -> None:
    """Run for longer than the configuration allows: see `misbehaving_worker`."""
    time.sleep(60)


@shared_task
def too_slow_softly() -> None:
    """Run for longer than the configuration's soft limit allows."""
    time.sleep(60)


@shared_task
def ask_inside(way: str) -> Any:
    """Call another job from this one, by a new client."""
    name = f"{__name__}.recurse"
    with Client() as client:
        one = client.app.signature(name, (0,)).set(queue="add")
        if way == "call":
            return client.call(one, timeout=30)
        if way == "submit":
            return client.get(client.submit(one), timeout=30)
        if way == "map":
            return client.call(group([one]), timeout=30)[0]
        then = client.app.signature(name, (0,), immutable=True).set(queue="add")
        return client.call(chain(one, then), timeout=30)


@shared_task(acks_late=False, reject_on_worker_lost=False)
def kill_once_begun(trace: str) -> None:
    """End this process each time."""
    with Path(trace).open("a") as file:
        file.write("began\n")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def calls_another(x: int) -> list[Any]:
    """Submit jobs with a client, and wait for them."""
    with Client() as client:
        job = client.submit("add.tasks.add", x, 1)
        called = client.call("add.tasks.add", x, 2, timeout=20)
        mapped = client.map("add.tasks.add", [(x, 3), (x, 4)], timeout=20)
        return [client.get(job, timeout=20), called, *mapped]
