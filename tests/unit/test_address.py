"""All forms of a server's URL are read alike for queues and results, or refused in one line."""

import os
import subprocess
import sys
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from celery_streams import address
from celery_streams.errors import UnknownServer
from cluster.connections import servers

GOOD = {
    "redis://": ("127.0.0.1", 6379, 0),
    "redis://h": ("h", 6379, 0),
    "redis://h/": ("h", 6379, 0),
    "redis://h:1/2": ("h", 1, 2),
    "redis://h?db=3": ("h", 6379, 3),
    "redis://h/3?virtual_host=3": ("h", 6379, 3),
    "redis://h?virtual_host=/4": ("h", 6379, 4),
    "redis://[::1]:6380/1": ("::1", 6380, 1),
    "redis://u%40:p%2F%3A@h/1": ("h", 6379, 1),
    "valkey://h/1": ("h", 6379, 1),
    "valkeys://h/1": ("h", 6379, 1),
    "rediss://h:1/2": ("h", 1, 2),
    "rediss://h?ssl_cert_reqs=CERT_NONE": ("h", 6379, 0),
    "rediss://h?ssl_check_hostname=false&ssl_ca_certs=/ca%20s.pem": ("h", 6379, 0),
    "redis://h?socket_timeout=3&health_check_interval=5": ("h", 6379, 0),
}
SOCKETS = {
    "redis+socket:///run/r.sock": ("/run/r.sock", 0),
    "socket:///run/r.sock?virtual_host=2": ("/run/r.sock", 2),
    "unix:///run/a%20b.sock?db=2": ("/run/a b.sock", 2),
    "redis+unix://:pw@/run/r.sock": ("/run/r.sock", 0),
    "redis+socket://u:p%40w@/run/r.sock?virtual_host=1&socket_timeout=2": ("/run/r.sock", 1),
}
BAD = [
    *("", "garbage", "://h", "redis:/h", "redis://h:abc/0", "redis://h:99999/0", "redis://h:0"),
    *("redis://h/x", "redis://h/1/2", "redis://h/-1", "redis://h?db=x", "redis://h/1?db=2"),
    *("redis://h?x=y", "redis://h?db=1&db=1", "redis://h ", "redis://h\n", "redis://[::1/0"),
    *("redis://a;redis://b", "redis://a:1,b:2/0", "redis://:p#w@h/0", "redis://h?path=/run/r"),
    *("redis://h?ssl_cert_reqs=none", "rediss://h?ssl_cert_reqs=perhaps", "redis+socket://"),
    *("redis+socket://h/run/r", "unix:///", "sentinel://h:26379", "sentinel://a;sentinel://b"),
    *("redis+sentinel://h", "rediss+socket:///run/r", "redis+redis://h", "rediss+foo://h"),
    *("sqs://", "memory://", "kafka://h", "https://h", "redis://h?socket_timeout=soon"),
    *("Redis://h", "redis.x:y+redis://h", "\ud800://h"),
]


def parameters(connection: Connection) -> dict[str, Any]:
    """Return the connection's parameters, without connecting."""
    transport: Any = connection.transport
    channel = transport.Channel.__new__(transport.Channel)
    channel.connection = transport
    found: dict[str, Any] = channel._connparams()
    return found


def store(url: str) -> dict[str, Any]:
    """Return the parameters of the result store's connections."""
    if "://" not in url:  # Celery takes it for the name of a class
        address.read(url)
    app = Celery(set_as_current=False, backend=f"celery_streams:RedisBackend+{url}")
    backend: Any = app.backend
    found: dict[str, Any] = backend.connparams
    return found


@pytest.mark.parametrize("kind", ["Transport", "ListTransport"])
@pytest.mark.parametrize("url", GOOD)
def test_broker_and_results_are_found_at_the_same_place(url: str, kind: str) -> None:
    with Connection(url, transport=f"celery_streams:{kind}") as connection:
        clone = connection.clone()
        for found in (parameters(connection), parameters(clone), store(url)):
            assert (found["host"], found["port"], found["db"]) == GOOD[url]
            is_tls = (
                "ssl" in found["connection_class"].__name__.lower()
                if ("connection_class" in found)
                else False
            )
            assert is_tls == url.startswith(("rediss", "valkeys"))


@pytest.mark.parametrize("kind", ["Transport", "ListTransport"])
@pytest.mark.parametrize("url", SOCKETS)
def test_a_socket_is_not_a_database(url: str, kind: str) -> None:
    plain = url.removeprefix("redis+")
    with Connection(plain, transport=f"celery_streams:{kind}") as connection:
        for found in (parameters(connection), parameters(connection.clone()), store(url)):
            assert (found["path"].replace("%20", " "), found["db"]) == SOCKETS[url]
            assert "host" not in found


@pytest.mark.parametrize("url", BAD)
@pytest.mark.parametrize("what", [address.read, store, servers.results, servers.broker])
def test_anything_else_is_one_line_that_shows_no_password(what: Any, url: str) -> None:
    with pytest.raises(UnknownServer) as caught:
        what(url.replace("h", "user:s3cr3t@h", 1) if url.startswith("redis://h") else url)

    assert len(str(caught.value).splitlines()) == 1
    assert "s3cr3t" not in str(caught.value)
    assert "p#w" not in str(caught.value)


@pytest.mark.parametrize("url", ["sentinel://h:26379", "redis://a;redis://b", "redis://h?x=y"])
def test_the_transport_refuses_what_it_cannot_be(url: str) -> None:
    with pytest.raises(UnknownServer):
        Connection(url, transport="celery_streams:Transport").default_channel  # noqa: B018


def test_tls_without_options_checks_the_certificate() -> None:
    with Connection("rediss://h", transport="celery_streams:Transport") as connection:
        assert parameters(connection)["ssl_cert_reqs"].name == "CERT_REQUIRED"
    assert store("rediss://h")["ssl_cert_reqs"].name == "CERT_REQUIRED"


@pytest.mark.parametrize("variable", ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"])
@pytest.mark.parametrize("program", ["add.worker", "callers.add", "callers.beat"])
@pytest.mark.parametrize("url", ["sentinel://h:26379", "redis://h/x", "sqs://", "rediss+x://h"])
def test_a_program_of_the_cluster_says_which_variable(
    program: str, variable: str, url: str
) -> None:
    arguments = ["4", "6"] if program == "callers.add" else []
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        env={**os.environ, variable: url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {variable} ")
    assert len(done.stderr.splitlines()) == 1


def test_a_variable_that_would_go_past_the_configuration_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "add.worker"],
        env={**os.environ, "CELERY_BROKER_READ_URL": "redis://h"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (
        done.stderr
        == "error: CELERY_BROKER_READ_URL is not supported: set CELERY_BROKER_URL instead\n"
    )
