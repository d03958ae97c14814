"""The pool goes on, and ends, whatever becomes of its processes, main process and server."""

import os
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded

from celery_streams.errors import DeadLetter
from celery_streams.worker.rate_limits import MAX_UNCOUNTED
from tests.support.local import Local
from tests.support.programs import OURS, program, worker
from tests.support.waiting import eventually


@pytest.fixture
def pooled(url: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the program."""
    with program("tests.streams.pooled", url, monkeypatch) as pooled:
        yield pooled


def alive(pid: int) -> bool:
    """Return True if a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_that_are_replaced_leave_nothing_open(pooled: Any, tmp_path: Path) -> None:
    def files() -> int:
        return len([*Path(f"/proc/{process.pid}/fd").iterdir()])

    with worker(pooled, tmp_path / "log", OURS, "--max-tasks-per-child=1") as process:
        {pooled.pid.delay().get(timeout=30) for _ in range(4)}
        before = files()
        ids = {pooled.pid.delay().get(timeout=30) for _ in range(20)}

        assert len(ids) == 20
        # A connection of the main process may be new, but not one for each process.
        eventually("all are closed", lambda: files() < before + 5)


def test_processes_end_with_their_main_process(pooled: Any, tmp_path: Path) -> None:
    with worker(pooled, tmp_path / "log", OURS) as process:
        ids = {pooled.sleep.delay(0.2).get(timeout=30) for _ in range(2)}
        pooled.sleep.delay(60)
        jobs = [pooled.sleep.delay(0.2) for _ in range(4)]
        ids |= {job.get(timeout=30) for job in jobs}
        process.kill()
        process.wait()

        eventually("they end", lambda: not any(map(alive, ids)))


def test_a_hook_that_raises_holds_up_neither_its_job_nor_others(
    pooled: Any, store: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with worker(pooled, log, OURS):
        bad = pooled.too_long.delay()
        eventually("it has failed", lambda: "in the hook" in log.read_text())
        assert [pooled.pid.delay().get(timeout=30) for _ in range(5)]
        long = pooled.until_told.apply_async(soft_time_limit=1)
        assert long.get(timeout=30) == "told"
        with pytest.raises((DeadLetter, TimeLimitExceeded)):
            bad.get(timeout=30)
        eventually("its message is gone", lambda: held(store) == 0)


def test_a_worker_holds_few_of_the_jobs_that_wait_for_a_rate_limit(
    pooled: Any, store: Any, tmp_path: Path
) -> None:
    count = 5 * MAX_UNCOUNTED
    for number in range(count):
        pooled.limited.delay(number)
    with worker(pooled, tmp_path / "log", OURS):
        eventually("it holds some", lambda: held(store) >= MAX_UNCOUNTED)
        first = store.xlen("celery:stream:0")
        eventually("some have run", lambda: store.xlen("celery:stream:0") + 100 < first)
        assert held(store) < 2 * MAX_UNCOUNTED


def held(store: Any) -> int:
    """Return how many messages the workers hold."""
    streams = ("celery:returned:0", "celery:stream:0")
    return sum(
        group["pending"]
        for each in streams
        if store.exists(each)
        for group in store.xinfo_groups(each)
    )


def test_a_worker_ends_while_its_server_is_gone(tmp_path: Path, monkeypatch: Any) -> None:
    local = Local(tmp_path, "--server-only")
    try:
        local.wait_until_ready()
        password = local.password.read_text()
        monkeypatch.setenv(
            "PLAIN_URL", f"redis://:{quote(password, safe='')}@127.0.0.1:{local.port}/0"
        )
        sys.modules.pop("tests.streams.pooled", None)
        pooled: Any = import_module("tests.streams.pooled")
        log = tmp_path / "worker"
        with worker(pooled, log, OURS) as process:
            ids = {pooled.pid.delay().get(timeout=30) for _ in range(10)}
            (server,) = local.running("server")
            os.kill(server.pid, signal.SIGKILL)
            eventually("it notices", lambda: log.read_text().count("Trying again") >= 2)
            process.terminate()

            assert process.wait(20) == 0
            assert not any(map(alive, ids))
    finally:
        local.stop()


@pytest.mark.parametrize("by", ["its limit", "revoke", "SIGQUIT"])
def test_the_finally_blocks_of_a_job_run_that_is_ended(
    pooled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("POOLED_INTERVAL", "1")
    with worker(pooled, tmp_path / "log", OURS) as process:
        job = pooled.cleans_up.delay(str(tmp_path))
        eventually("it has begun", (tmp_path / "begun").exists)
        if by == "revoke":
            pooled.app.control.revoke(job.id, terminate=True)
        if by == "SIGQUIT":
            process.send_signal(signal.SIGQUIT)
        eventually("it has cleaned up", (tmp_path / "ended").exists)
        if by == "its limit":
            with pytest.raises(TimeLimitExceeded):
                job.get(timeout=30)
        if by == "revoke":
            with pytest.raises(TaskRevokedError):
                job.get(timeout=30)


def test_sigterm_can_mean_another_signal(
    pooled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    with worker(pooled, tmp_path / "log", OURS) as process:
        first = pooled.pid.delay().get(timeout=30)
        os.kill(first, signal.SIGTERM)
        jobs = [pooled.sleep.delay(0.2) for _ in range(6)]
        assert first in {each.get(timeout=30) for each in jobs}
        job = pooled.cleans_up.delay(str(tmp_path))
        eventually("it has begun", (tmp_path / "begun").exists)
        pooled.app.control.revoke(job.id, terminate=True, signal="SIGQUIT")
        eventually("it has cleaned up", (tmp_path / "ended").exists)
        with pytest.raises(TaskRevokedError):
            job.get(timeout=30)
        process.terminate()
        assert process.wait(30) == 0


def test_a_job_that_is_ended_is_not_done_whatever_it_catches(pooled: Any, tmp_path: Path) -> None:
    (tmp_path / "limit").mkdir()
    with worker(pooled, tmp_path / "log", OURS) as process:
        # A job with a limit of its own has Celery's request, and stores its result when it ends.
        catches = pooled.catches.signature().set(time_limit=None)
        limited = catches.delay(str(tmp_path / "limit"))
        with pytest.raises(TimeLimitExceeded):
            limited.get(timeout=30)
        job = catches.delay(str(tmp_path))
        eventually("it has begun", (tmp_path / "begun").exists)
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
    with worker(pooled, tmp_path / "other", OURS):
        assert job.get(timeout=30) == "again"


@pytest.mark.parametrize(("status", "shown"), [(-1, 255), (-20, 236)])
def test_a_negative_status_is_no_signal(
    pooled: Any, tmp_path: Path, status: int, shown: int
) -> None:
    pooled.app.conf.task_reject_on_worker_lost = True
    with worker(pooled, tmp_path / "log", OURS):
        with pytest.raises(DeadLetter):
            pooled.leave.delay(status).get(timeout=30)
        assert pooled.pid.delay().get(timeout=30)
    assert f"exitcode {shown}" in (tmp_path / "log").read_text()


def test_revoking_by_sigusr1_raises_the_soft_limit(pooled: Any, tmp_path: Path) -> None:
    with worker(pooled, tmp_path / "log", OURS):
        job = pooled.until_told.delay()
        eventually("it has begun", lambda: job.state == "STARTED")
        pooled.app.control.revoke(job.id, terminate=True, signal="SIGUSR1")
        # As in Celery's prefork, it is revoked at once, and has its own outcome when it ends.
        again = pooled.app.AsyncResult
        eventually("it has ended", lambda: again(job.id).state == "SUCCESS")
        assert again(job.id).get(timeout=30) == "told"


DEATH = "exited with 'signal 9 (SIGKILL)'"


def test_processes_have_an_index_and_their_deaths_are_logged(pooled: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with worker(pooled, log, OURS, "--loglevel=INFO") as process:
        jobs = [pooled.acked.delay(5) for _ in range(2)]
        inspect = pooled.app.control.inspect(timeout=5, limit=1)
        eventually("both run", lambda: all(job.state == "STARTED" for job in jobs))
        [running] = inspect.active().values()
        assert [job["acknowledged"] for job in running] == [True, True]
        assert {job.get(timeout=30) for job in jobs} == {0, 1}
        for index in range(2):
            [stats] = inspect.stats().values()
            os.kill(stats["pool"]["processes"][0], signal.SIGKILL)
            eventually("it is logged", lambda: log.read_text().count(DEATH) > index)  # noqa: B023
        assert {pooled.acked.delay(0.5).get(timeout=30) for _ in range(2)} <= {0, 1}
        before = log.read_text().count("Connected to redis")
        pooled.app.control.rate_limit(pooled.pid.name, "100/s", reply=True, timeout=5, limit=1)
        assert pooled.pid.delay().get(timeout=30)
        assert log.read_text().count("New rate limit") == 1
    assert before == 1
    assert process.returncode == 0


def test_a_process_may_be_woken_before_it_has_begun(
    pooled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLED_WAKE_EARLY", "1")
    with worker(pooled, tmp_path / "log", OURS):
        assert pooled.pid.delay().get(timeout=30)
    assert "exited with" not in (tmp_path / "log").read_text()


def test_revoked_jobs_do_not_begin(pooled: Any, tmp_path: Path) -> None:
    with worker(pooled, tmp_path / "log", OURS):
        busy = [pooled.sleep.delay(2) for _ in range(2)]
        eventually("both are busy", lambda: all(job.state == "STARTED" for job in busy))
        job = pooled.pid.delay()
        pooled.app.control.revoke(job.id, reply=True, timeout=5, limit=1)
        with pytest.raises(Exception, match="revoked"):
            job.get(timeout=30)


ALONE = ("--concurrency=1",)


def test_a_job_that_breaks_its_connection_holds_up_no_other(pooled: Any, tmp_path: Path) -> None:
    with worker(pooled, tmp_path / "log", OURS, *ALONE):
        broken = pooled.close_sockets.delay()
        others = [pooled.pid.delay() for _ in range(20)]
        assert all(job.get(timeout=60) for job in others)
        assert broken.get(timeout=30) == "closed"


def test_a_job_whose_process_dies_just_after_it_is_a_dead_letter(
    pooled: Any, store: Any, tmp_path: Path
) -> None:
    with worker(pooled, tmp_path / "log", OURS, *ALONE):
        pooled.die_later.delay()
        others = [pooled.pid.delay() for _ in range(5)]
        assert all(job.get(timeout=60) for job in others)
        eventually("it is kept", lambda: store.xlen("celery:dead") == 1)
        assert held(store) == 0


def test_a_process_whose_files_a_job_closed_is_replaced(pooled: Any, tmp_path: Path) -> None:
    with worker(pooled, tmp_path / "log", OURS, *ALONE):
        closed = pooled.close_files.delay(str(tmp_path))
        pid = closed.get(timeout=30)
        not_plain = [pooled.pid.apply_async(expires=60) for _ in range(3)]
        assert all(job.get(timeout=30) not in {None, pid} for job in not_plain)
    assert {(tmp_path / str(number)).read_text() for number in range(60)} == {"mine"}


def test_a_process_that_may_write_no_files_is_replaced(pooled: Any, tmp_path: Path) -> None:
    with worker(pooled, tmp_path / "log", OURS, *ALONE):
        pid = pooled.forbid_files.delay().get(timeout=30)
        assert pooled.pid.apply_async(expires=60).get(timeout=30) != pid


def test_a_soft_limit_is_kept_after_a_job_that_blocks_signals(pooled: Any, tmp_path: Path) -> None:
    with worker(pooled, tmp_path / "log", OURS, *ALONE):
        pooled.block_signals.delay().get(timeout=30)
        assert pooled.until_told.apply_async(soft_time_limit=1).get(timeout=30) == "told"


def test_a_result_does_not_wait_for_a_job_that_lets_no_signal_in(
    pooled: Any, tmp_path: Path
) -> None:
    with worker(pooled, tmp_path / "log", OURS, *ALONE):
        pooled.compute.delay(5_000_000).get(timeout=60)  # it is known as slow from now on
        for _ in range(3):
            *_, pid = [pooled.pid.delay().get(timeout=30) for _ in range(5)]  # many for a fetch
            os.kill(pid, signal.SIGSTOP)
            # The process waits, and has the first one alone.
            _, quick, slow = (
                pooled.pid.delay(),
                pooled.pid.delay(),
                pooled.compute.delay(100_000_000),
            )
            os.kill(pid, signal.SIGCONT)
            assert quick.get(timeout=60)
            assert not slow.ready()
            slow.get(timeout=60)


def test_a_stopped_process_holds_up_no_other_and_runs_no_job_again(
    pooled: Any, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    with worker(pooled, tmp_path / "log", OURS, "--concurrency=3"):
        assert pooled.pid.delay().get(timeout=30)
        for _ in range(3):
            [stats] = pooled.app.control.inspect(timeout=5, limit=1).stats().values()
            for pid in stats["pool"]["processes"]:
                os.kill(pid, signal.SIGSTOP)
                jobs = [pooled.write_down.delay(str(ran)) for _ in range(4)]
                ids = [job.get(timeout=30) for job in jobs]
                os.kill(pid, signal.SIGCONT)
                assert pid not in ids
        pooled.app.control.inspect(timeout=5, limit=1).stats()
        jobs = [pooled.sleep.delay(0.5) for _ in range(9)]
        assert len({job.get(timeout=30) for job in jobs}) == 3  # all of them run jobs again
    assert len(ran.read_text().splitlines()) == 36
