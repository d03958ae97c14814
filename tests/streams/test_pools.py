"""Celery's own worker on the transport, with each of its pools that needs no other package."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chord

from tests.repo.repo import ROOT
from tests.waiting import eventually

POOLS = ("prefork", "solo", "threads")


@pytest.fixture
def plain(url: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the program."""
    with _plain(url, monkeypatch) as plain:
        yield plain


@contextmanager
def _plain(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("PLAIN_URL", url)
    sys.modules.pop("tests.streams.plain", None)
    from tests.streams import plain

    yield plain
    backend: Any = plain.app.backend
    backend.result_consumer.stop()
    backend.client.connection_pool.disconnect()
    plain.app.close()


@contextmanager
def worker(
    program: ModuleType, log: Path, pool: str, *arguments: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a worker, ended as SIGTERM does."""
    command = ("-m", "celery", "-A", program.__name__, "worker", "-c", "2", "-P", pool)
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, *command, "--without-gossip", "--without-mingle", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


@pytest.mark.parametrize("pool", POOLS)
def test_jobs_and_canvas_run_and_nothing_is_left(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool) as process:
        jobs = [plain.add.delay(i, i) for i in range(50)]
        assert [job.get(timeout=30) for job in jobs] == [*range(0, 100, 2)]
        assert chord([plain.add.s(i, 1) for i in range(5)], plain.total.s())().get(timeout=30) == 15
        later = plain.add.apply_async((4, 6), countdown=3)
        assert later.get(timeout=30) == 10
        eventually(
            "all are acknowledged",
            lambda: not any(store.xlen(key) for key in store.scan_iter("celery:*", _type="stream")),
        )
    assert process.returncode == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("pool", POOLS)
def test_a_job_longer_than_three_leases_runs_once(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool), worker(plain, tmp_path / "other", pool):
        assert plain.runs_of.delay("runs", 6.5).get(timeout=30) == 1
    logs = [file.read_text() for file in (tmp_path / "log", tmp_path / "other")]
    assert store.get("runs") == "1", "\n".join(logs)


@pytest.mark.parametrize("pool", POOLS)
def test_what_a_killed_worker_ran_runs_again(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool) as killed:
        job = plain.runs_of.delay("runs", 3)
        eventually("it runs", lambda: store.get("runs") == "1")
        os.killpg(killed.pid, signal.SIGKILL)
        with worker(plain, tmp_path / "other", pool):
            assert job.get(timeout=30) == 2


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_stopped_finishes_what_runs(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool) as stopped:
        jobs = [plain.runs_of.delay(f"runs {i}", 2) for i in range(6)]
        eventually("two run", lambda: len([*store.scan_iter("runs *")]) >= 2)
        stopped.terminate()
        with worker(plain, tmp_path / "other", pool):
            assert [job.get(timeout=30) for job in jobs] == [1] * 6


@pytest.mark.parametrize("pool", POOLS)
def test_what_waits_in_a_worker_longer_than_a_lease_runs_once(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool):
        # A plain worker takes four jobs ahead for each that it runs.
        jobs = [plain.runs_of.delay(f"runs {i}", 1.5) for i in range(4)]
        eventually("one runs", lambda: [*store.scan_iter("runs *")])
        with worker(plain, tmp_path / "other", pool):
            assert [job.get(timeout=30) for job in jobs] == [1] * 4


@pytest.mark.parametrize("pool", POOLS)
def test_lost_connections_make_nothing_run_twice(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool):
        jobs = [plain.runs_of.delay(f"runs {i}", 2) for i in range(6)]
        eventually("one runs", lambda: [*store.scan_iter("runs *")])
        for _ in range(2):
            store.client_kill_filter(_type="normal", skipme=True)
            eventually("it fetches again", lambda: store.client_list(_type="normal"))
        assert [job.get(timeout=40) for job in jobs] == [1] * 6
    assert not store.exists("celery:dead")
