"""A server, and kombu's connections to it by the transport."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from kombu import Connection

from tests.support.local import Local

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
