"""The connections of a pool's processes."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.local import Local
from tests.support.waiting import eventually

#: Connections that a process has anyway: two to fetch, one for events.
OWN = 3

linux_only = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="sockets are listed in Linux's /proc"
)


def sockets(process: str | int) -> set[str]:
    """Return the sockets of a process."""
    found = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # just closed
            found.add(str(file.readlink()))
    return {name for name in found if name.startswith("socket:")}


@linux_only
def test_pool_processes_know_the_store_and_the_broker_before_a_job(server_only: Local) -> None:
    with (
        server_only.own_worker("add.worker", ADD_CONCURRENCY="2") as worker,
        server_only.client() as client,
    ):
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        eventually("the pool is there", lambda: len(children.read_text().split()) == 2)

        processes = children.read_text().split()
        eventually(
            "each process has connections to the store, and to publish to the broker",
            lambda: all(len(sockets(process) - sockets(worker.pid)) > OWN for process in processes),
        )

        # The warm-up sends nothing.
        assert client.call("add.tasks.longtime_add", 4, 6, 0) == 10
        backend: Any = client.app.backend
        store = backend.client
        streams = [*store.scan_iter("add:*", _type="stream")]
        assert sum(store.xinfo_stream(stream)["entries-added"] for stream in streams) == 1


def test_more_processes_than_the_server_has_connections_for_are_refused(
    server_only: Local,
) -> None:
    with redis.Redis.from_url(server_only.url) as store:
        store.config_set("maxclients", 40)
        with server_only.own_worker("add.worker", ADD_CONCURRENCY="20") as worker:
            assert worker.wait(30) == 1
    (line,) = [each for each in server_only.own_log.read_text().splitlines() if "CRITICAL" in each]
    assert re.search(r"20 processes take at least 80 connections, .* has \d+ of 40 left", line)
    assert "Traceback" not in server_only.own_log.read_text()
