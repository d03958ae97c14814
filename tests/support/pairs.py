"""Two workers of one program: one with our pool, one with Celery's prefork."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from tests.support.programs import OURS
from tests.support.programs import worker as run_worker
from tests.support.waiting import eventually

#: The two queues, each with a worker, and the pools of these.
POOLS = {"ours": OURS, "stock": "prefork"}
#: What a worker names its pool.
IMPLEMENTATIONS = {
    "ours": "celery_streams.worker.pool:TaskPool",
    "stock": "celery.concurrency.prefork:TaskPool",
}
#: The module of the program.
Twins = Any


@pytest.fixture
def program(url: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Twins]:
    """The program's module."""
    monkeypatch.setenv("PLAIN_URL", url)
    sys.modules.pop("tests.streams.twins", None)
    twins: Any = import_module("tests.streams.twins")

    yield twins
    backend: Any = twins.app.backend
    backend.result_consumer.stop()
    backend.client.connection_pool.disconnect()
    twins.app.close()


@pytest.fixture
def start(
    program: Twins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., AbstractContextManager[tuple[Twins, int]]]:
    """A function that starts the two workers; yields the program's module and the pid of ours."""

    @contextmanager
    def start(*arguments: str, **variables: str) -> Iterator[tuple[Twins, int]]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with ExitStack() as stack:
            processes = []
            for queue, pool in POOLS.items():
                own = ("-Q", queue, "-n", f"{queue}@%h", *arguments)
                log = tmp_path / f"{queue}.log"
                processes.append(stack.enter_context(run_worker(program, log, pool, *own)))
                # A broadcast does not reach a worker that is still starting.
                name = f"{queue}@{socket.gethostname()}"
                eventually("the worker is up", lambda: _answers(program, name))  # noqa: B023
            stats = program.app.control.inspect(timeout=10, limit=len(POOLS)).stats()
            pools = {worker: known["pool"]["implementation"] for worker, known in stats.items()}
            assert pools == {
                worker_of(program, queue): name for queue, name in IMPLEMENTATIONS.items()
            }
            yield program, processes[0].pid
        for queue, process in zip(POOLS, processes, strict=True):
            assert process.returncode == 0, (tmp_path / f"{queue}.log").read_text()

    return start


def _answers(twins: Twins, worker: str) -> bool:
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
