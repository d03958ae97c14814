"""The compose stack of the fault suite: three add workers and one of factorial."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
import redis
from kombu import pools

from callers.client import Client
from local.server import free_port
from tests.cluster.conftest import LOGS, engine
from tests.faults import requirements
from tests.faults.jobs import Job
from tests.faults.load import Load
from tests.faults.report import Report
from tests.faults.runs import Runs
from tests.support.repo import ROOT
from tests.support.stack import Stack
from tests.support.waiting import eventually

__all__ = ["engine"]

#: Lease of the workers, in seconds: short, for a quick suite.
LEASE = 5
#: Number of add workers, and their concurrency.
WORKERS = 3
CONCURRENCY = 4
FOLDER = "tests/faults/stack"


class MakeLoad(Protocol):
    """A function that creates a load on the stack."""

    def __call__(
        self,
        *,
        connect: Callable[[], Client] = ...,
        jobs: Callable[[random.Random], Iterator[Job]] = ...,
        in_flight: int = ...,
        max_jobs: int = ...,
    ) -> Load:
        """Return a load, whose callers start with its block."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs."""
    folder = tmp_path_factory.mktemp("runs")
    # Its parents stay private: the engine mounts only this folder.
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="session")
def started(
    engine: None,
    faketime: str,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """The stack, built and started once, if all requirements are there."""
    subprocess.run([ROOT / "deploy" / "make_secrets"], check=True)
    port = free_port()
    settings = tmp_path_factory.mktemp("compose") / "settings"
    settings.write_text(
        f"REDIS_PORT={port}\nJOB_LEASE={LEASE}\nIMAGE_PREFIX=task-cluster-faults\n"
        f"ADD_REPLICAS={WORKERS}\nADD_CONCURRENCY={CONCURRENCY}\nRUNS_FOLDER={folder}\n"
        f"REDIS_TRANSPORT={os.environ.get('REDIS_TRANSPORT', 'streams')}\n"
    )
    stack = Stack(
        f"task-cluster-faults-{os.getpid()}", settings, port, overlays=[f"{FOLDER}/overlay.yml"]
    )
    try:
        stack.compose("build", "--quiet", "add", "factorial", seconds=900)
        up(stack)
        yield stack
    finally:
        LOGS.mkdir(exist_ok=True)
        (LOGS / "faults.log").write_text(stack.compose("logs", "--no-color", "--timestamps"))
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")


def up(stack: Stack) -> None:
    """Start the services that do not run, and wait until all are healthy."""
    services = ("redis", "add", "factorial")
    # Not `--wait`: it fails if a worker is still unhealthy from an earlier test.
    stack.compose("up", "--detach", "--no-build", *services)
    for service in services:
        stack.wait_until_healthy(service)


@pytest.fixture
def runs(folder: Path) -> Runs:
    """The runs of the test's jobs."""
    return Runs(folder)


@pytest.fixture
def stack(
    started: Stack, server: "redis.Redis", report: Report, has_lists: bool
) -> Iterator[Stack]:
    """The running stack, repaired if an earlier test broke it."""
    if has_lists:  # a message that kills each worker would kill those of the next test
        started.compose("stop", "--timeout", "1", "add", "factorial")
        eventually("Redis answers", lambda: answers(server), 60)
        server.flushall()
    up(started)
    eventually("Redis answers", lambda: answers(server), 60)
    server.config_set("maxmemory", "2gb")
    report.describe(str(server.info("server")["redis_version"]))
    yield started
    # No test inherits broken connections of another.
    pools.reset()


@pytest.fixture
def server(started: Stack) -> Iterator["redis.Redis"]:
    """A plain client of the stack's Redis."""
    with redis.Redis.from_url(started.result_url, socket_timeout=5) as server:
        yield server


def answers(server: "redis.Redis") -> bool:
    """Return True if Redis answers and has loaded its data."""
    try:
        return bool(server.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    """A caller beside the load."""
    with stack.client() as client:
        yield client


@pytest.fixture
def load(stack: Stack, runs: Runs, chance: random.Random) -> MakeLoad:
    """A function that creates a load on the stack: 2,000 jobs in flight during its block."""
    made: MakeLoad = partial(Load, runs=runs, chance=chance, connect=stack.client)
    return made


@pytest.fixture
def has_lists(pytestconfig: pytest.Config) -> bool:
    """Whether the transport is kombu's own."""
    return bool(pytestconfig.getoption("--lists"))


@pytest.fixture(scope="session")
def faketime() -> str:
    """The library that shifts a process's clock."""
    library = requirements.faketime()
    assert library
    return str(library)
