"""A server and workers without Docker, for faults by signals."""

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
from tests.support.local import Local
from tests.support.waiting import eventually

LOGS = ROOT / ".test-logs"
#: Lease of the workers, in seconds: short, for quick tests.
LEASE = 4
#: Number of add workers, and their concurrency.
WORKERS = 2
CONCURRENCY = 4
#: Limit for the duration of a job here, in seconds: this part takes less than two minutes.
MAX_SECONDS = 0.1
#: Limit for the jobs of a load here.
MAX_JOBS = 3000


class MakeLoad(Protocol):
    """A function that creates a load on the local cluster."""

    def __call__(self, *, jobs: Callable[[random.Random], Iterator[Job]] = ...) -> Load:
        """Return a load, whose callers start with its block."""


class Workers:
    """Workers that record their runs; a killed one is restarted before the next test."""

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
            for worker, name in self._families.items()
            if name == family and worker.poll() is None
        ]

    def heal(self) -> None:
        """Start a worker for each that has ended."""
        for worker, family in [*self._families.items()]:
            if worker.poll() is not None:
                del self._families[worker]
                self.start(family)

    def keep_logs(self) -> None:
        """Copy their logs to a permanent folder."""
        LOGS.mkdir(exist_ok=True)
        for log in self._folder.glob("*.log"):
            (LOGS / f"faults-{log.name}").write_bytes(log.read_bytes())

    def stop(self) -> None:
        """Stop all workers; kill one that does not end in time."""
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
    """The folder of runs and logs."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[Local]:
    """A server that its supervisor restarts when it is killed."""
    local = Local(folder, "--server-only", JOB_LEASE=str(LEASE), ADD_CONCURRENCY=str(CONCURRENCY))
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
    """The workers, restarted if an earlier test killed some."""
    all_workers.heal()
    return all_workers


@pytest.fixture
def runs(folder: Path) -> Runs:
    """The runs of the test's jobs."""
    return Runs(folder)


@pytest.fixture
def server(local: Local) -> Iterator["redis.Redis"]:
    """A plain client of the server."""
    password = local.password.read_text()
    with redis.Redis(port=local.port, password=password, socket_timeout=5) as server:
        yield server


@pytest.fixture
def client(local: Local) -> Iterator[Client]:
    """A caller beside the load."""
    with local.client() as client:
        yield client
    # No test inherits broken connections of another.
    pools.reset()


@pytest.fixture
def load(
    client: Client, local: Local, workers: Workers, runs: Runs, chance: random.Random
) -> MakeLoad:
    """A function that creates a load: 2,000 jobs in flight during its block."""
    jobs = partial(mixed, max_seconds=MAX_SECONDS)
    made: MakeLoad = partial(Load, local.client, runs, chance, jobs=jobs, max_jobs=MAX_JOBS)
    return made
