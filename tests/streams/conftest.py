"""A server, and kombu's connections to it by the transport."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from tests.support.local import Local
from tests.support.pairs import IMPLEMENTATIONS, POOLS, Twins, answers, worker_of
from tests.support.programs import worker as run_worker
from tests.support.waiting import eventually

#: Lease of a message, in seconds: tests wait for its end.
LEASE = 2

Connect = Callable[..., Connection]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A server without workers that all tests share."""
    local = Local(tmp_path_factory.mktemp("streams"), "--server-only")
    try:
        local.wait_until_ready()
        yield local
    finally:
        local.stop()


@pytest.fixture(scope="session")
def server_url(server: Local) -> str:
    """The server's URL."""
    return server.url


@pytest.fixture
def url(server_url: str) -> str:
    """The URL by which a test reaches the server."""
    return server_url


@pytest.fixture
def store(server_url: str) -> Iterator[Any]:
    """A plain client of the server, which is empty."""
    with redis.Redis.from_url(server_url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def connect(url: str, store: Any) -> Iterator[Connect]:
    """Return a function that opens connections by the transport; close them in the end."""
    with ExitStack() as stack:

        def connect(**options: Any) -> Connection:
            options = {"lease": LEASE, **options}
            connection = Connection(
                url,
                transport="celery_streams:Transport",
                transport_options=options,
            )
            return stack.enter_context(connection)

        yield connect


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
                eventually("the worker is up", lambda: answers(program, name))  # noqa: B023
            stats = program.app.control.inspect(timeout=10, limit=len(POOLS)).stats()
            pools = {worker: known["pool"]["implementation"] for worker, known in stats.items()}
            assert pools == {
                worker_of(program, queue): name for queue, name in IMPLEMENTATIONS.items()
            }
            yield program, processes[0].pid
        for queue, process in zip(POOLS, processes, strict=True):
            assert process.returncode == 0, (tmp_path / f"{queue}.log").read_text()

    return start
