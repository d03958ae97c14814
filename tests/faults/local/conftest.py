"""A server and workers without Docker, to be treated as badly as an operating system can."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
import redis
from kombu import pools

from callers.client import Client
from local.server import ROOT
from tests.faults.jobs import Job, mixed
from tests.faults.load import Load
from tests.faults.runs import Runs
from tests.local.local import Local
from tests.waiting import eventually

LOGS = ROOT / ".test-logs"
#: Seconds: short, so that the tests are, too.
LEASE = 4
#: Workers of the family add, and the jobs that each runs at once.
WORKERS = 2
AT_ONCE = 4
#: Seconds of the longest wait in a load here: the plain part has to take less than two minutes.
LONGEST = 0.1
#: The most jobs of a load here.
MOST = 3000


class MakeLoad(Protocol):
    """What makes a load on the local cluster."""

    def __call__(self, *, jobs: Callable[[random.Random], Iterator[Job]] = ...) -> Load:
        """Return a load, whose callers start with its block."""


class Workers:
    """Workers that note their runs; whoever was killed is started again before the next test."""

    def __init__(self, local: Local, folder: Path) -> None:
        self._local = local
        self._folder = folder
        self._families: dict[subprocess.Popen[bytes], str] = {}

    def start(self, family: str) -> "subprocess.Popen[bytes]":
        """Start a worker of a family, and return when it consumes."""
        log = self._folder / f"{family}-{len([*self._folder.glob('*.log')])}.log"
        with log.open("w") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.worker", family],
                cwd=ROOT,
                env={**self._local.env, "RUNS_FILE": str(self._folder / "runs")},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._families[worker] = family
        eventually("the worker is ready", lambda: " ready." in log.read_text(), 60)
        return worker

    def of(self, family: str) -> "list[subprocess.Popen[bytes]]":
        """Return the workers of a family that run."""
        return [
            worker
            for worker, its_family in self._families.items()
            if its_family == family and worker.poll() is None
        ]

    def heal(self) -> None:
        """Start a worker in the place of each that has ended."""
        for worker, family in [*self._families.items()]:
            if worker.poll() is not None:
                del self._families[worker]
                self.start(family)

    def keep_logs(self) -> None:
        """Copy what they have logged to where it stays."""
        LOGS.mkdir(exist_ok=True)
        for log in self._folder.glob("*.log"):
            (LOGS / f"faults-{log.name}").write_bytes(log.read_bytes())

    def stop(self) -> None:
        """Stop them all; one that does not end in time is killed."""
        for worker in self._families:
            worker.send_signal(signal.SIGTERM)
        for worker in self._families:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs and logs are."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[Local]:
    """A server, started again by its supervisor when it was killed."""
    local = Local(folder, "--server-only", JOB_LEASE=str(LEASE), ADD_CONCURRENCY=str(AT_ONCE))
    try:
        local.wait_until_ready()
        yield local
    finally:
        local.stop()


@pytest.fixture(scope="module")
def all_workers(local: Local, folder: Path) -> Iterator[Workers]:
    """The workers, started once."""
    workers = Workers(local, folder)
    try:
        for _ in range(WORKERS):
            workers.start("add")
        workers.start("factorial")
        yield workers
    finally:
        workers.stop()
        workers.keep_logs()


@pytest.fixture
def workers(all_workers: Workers) -> Workers:
    """The workers, whole again whatever the test before did."""
    all_workers.heal()
    return all_workers


@pytest.fixture
def runs(folder: Path) -> Runs:
    """The runs of the test's jobs."""
    return Runs(folder)


@pytest.fixture
def server(local: Local) -> Iterator["redis.Redis"]:
    """The server, for what no caller does."""
    password = local.password.read_text()
    with redis.Redis(port=local.port, password=password, socket_timeout=5) as server:
        yield server


@pytest.fixture
def client(local: Local) -> Iterator[Client]:
    """A caller beside the load."""
    with local.client() as client:
        yield client
    # Each test is a program of its own: none inherits connections that broke in another.
    pools.reset()


@pytest.fixture
def load(
    client: Client, local: Local, workers: Workers, runs: Runs, chance: random.Random
) -> MakeLoad:
    """What makes a load: 2,000 jobs in flight, for as long as its block takes."""
    jobs = partial(mixed, longest=LONGEST)
    made: MakeLoad = partial(Load, local.client, runs, chance, jobs=jobs, most=MOST)
    return made
