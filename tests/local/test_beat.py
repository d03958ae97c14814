"""Beat: it submits by the clock, keeps its state, and refuses a wrong schedule at its start."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from callers.beat import check
from callers.client import Client
from celeryconfig import beat_schedule
from local.server import ROOT
from tests.support.local import Local
from tests.support.store import Store
from tests.support.waiting import eventually

TSUM = {"task": "add.tasks.tsum", "args": [[4, 6]]}
EVERY_HALF_SECOND = {"often": {"task": "add.tasks.tsum", "args": [[4, 6]], "schedule": 0.5}}


def hourly(kind: str) -> Any:
    """Return a schedule that is next due in half an hour, or in an hour."""
    minute = (datetime.now(UTC).minute + 30) % 60
    return 3600 if kind == "seconds" else {"crontab": f"{minute} * * * *"}


def sums(client: Client) -> int:
    """Return the number of beat's jobs that the workers have run."""
    stats = client.app.control.inspect(timeout=1).stats() or {}
    return sum(worker["total"].get("add.tasks.tsum", 0) for worker in stats.values())


def noted(state: Path, entry: str = "often") -> int:
    """Return the number of jobs in beat's state."""
    return int(json.loads(state.read_text())[entry]["count"])


def test_it_submits_by_the_clock_and_resumes_where_it_stopped(
    own_local: Local, tmp_path: Path
) -> None:
    variables = {
        "TEST_SCHEDULE": json.dumps(EVERY_HALF_SECOND),
        "BEAT_STATE": str(tmp_path / "beat" / "schedule"),
        "BEAT_HEARTBEAT_FILE": str(tmp_path / "heartbeat"),
    }
    runs = []
    with own_local.client() as client:
        for _ in range(2):
            minimum = sums(client) + 2
            with own_local.own_worker("tests.local.quick_beat", **variables) as beat:
                eventually("jobs done", lambda minimum=minimum: sums(client) >= minimum)  # type: ignore[misc]
            assert beat.returncode == 0, own_local.own_log.read_text()
            runs.append(noted(Path(variables["BEAT_STATE"])))

    assert (tmp_path / "heartbeat").exists()
    assert 2 <= runs[0] < runs[1]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"task": "add.tasks.ad", "schedule": 1}, "beat_schedule['x']: no task is called"),
        ({"schedule": 1}, "beat_schedule['x'] has no 'task'"),
        ({"task": "add.tasks.add"}, "beat_schedule['x'] has no 'schedule'"),
        ({"task": "add.tasks.add", "schedule": "daily"}, "above zero, not 'daily'"),
        ({"task": "add.tasks.add", "schedule": 0}, "above zero, not 0"),
        ({"task": "add.tasks.add", "schedule": True}, "above zero, not True"),
        ({"task": "add.tasks.add", "schedule": 1e300}, "above zero, not 1e+300"),
        ({"task": "add.tasks.add", "schedule": 1, "arguments": [4, 6]}, "beat_schedule['x']: "),
        ({"task": 5, "schedule": 1}, "beat_schedule['x']: "),
        (
            {"task": "add.tasks.add", "schedule": 1, "options": {"priority": 12}},
            "beat_schedule['x']: priority must be",
        ),
    ],
)
def test_a_wrong_schedule_is_one_line_at_the_start(
    local: Local, tmp_path: Path, entry: dict[str, Any], words: str
) -> None:
    schedule = json.dumps({"x": entry})
    state = str(tmp_path / "schedule")
    done = local.command("tests.local.quick_beat", TEST_SCHEDULE=schedule, BEAT_STATE=state)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_state_that_is_not_a_file_is_left_alone(local: Local, tmp_path: Path) -> None:
    done = local.command("callers.beat", BEAT_STATE=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr == f"error: BEAT_STATE must name a file, not {tmp_path}\n"


def test_the_schedule_of_the_configuration_is_right(client: Client) -> None:
    schedule: dict[str, dict[str, Any]] = beat_schedule

    check(schedule, client.app)
    assert all(entry["options"]["expires"] for entry in schedule.values())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A server without workers."""
    (tmp_path / "redis").mkdir()
    store = Store(tmp_path / "redis")
    assert store.process
    yield store
    store.process.send_signal(signal.SIGCONT)
    store.stop()


class Beat:
    """A beat process at a server without workers."""

    def __init__(self, store: Store, folder: Path, **entries: Any) -> None:
        self.state, self.log = folder / "schedule", folder / "log"
        self._heartbeat = folder / "heartbeat"
        self._store = store
        self.env = {
            **os.environ,
            "TEST_SCHEDULE": json.dumps({name: {**TSUM, **each} for name, each in entries.items()}),
            "BEAT_STATE": str(self.state),
            "BEAT_HEARTBEAT_FILE": str(self._heartbeat),
            "CELERY_BROKER_URL": store.url(),
            "CELERY_RESULT_BACKEND": store.url(),
        }

    def note(self, **ago: float) -> None:
        """Write a state in which its job was last submitted some time `ago`."""
        last = datetime.now(UTC) - timedelta(**ago)
        self.state.write_text(json.dumps({"often": {"last_run_at": last.isoformat(), "count": 0}}))

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run it, and kill it at the end."""
        command = [sys.executable, "-m", "tests.local.quick_beat"]
        with self.log.open("a") as log:
            beat = subprocess.Popen(command, env=self.env, cwd=ROOT, stdout=log, stderr=log)
            try:
                yield beat
            finally:
                beat.kill()
                beat.wait()

    def wait_for_a_pass(self) -> None:
        """Wait until it has gone through its schedule once."""
        for _ in range(2):  # the first may have begun before
            self._heartbeat.unlink(missing_ok=True)
            eventually("a pass over the schedule", self._heartbeat.exists, 90)

    def submitted(self, queue: str = "add") -> list[float]:
        """Return the times at which it submitted jobs, in seconds."""
        with self._store.redis() as redis:
            return [int(i.split(b"-")[0]) / 1000 for i, _ in redis.xrange(f"{queue}:stream:3")]


@pytest.mark.parametrize("kind", ["seconds", "crontab"])
@pytest.mark.parametrize("is_noted", [True, False])
def test_a_beat_that_is_killed_submits_nothing_twice(
    store: Store, tmp_path: Path, kind: str, is_noted: bool
) -> None:
    beat = Beat(store, tmp_path, often={"schedule": hourly(kind)})
    beat.note(hours=5)  # several times were missed
    before = beat.state.read_text()
    with beat.running():
        eventually("it is submitted and noted", lambda: noted(beat.state))
        beat.wait_for_a_pass()
    assert len(beat.submitted()) == 1
    if not is_noted:
        beat.state.write_text(before)

    with beat.running():
        beat.wait_for_a_pass()
        eventually("it is noted", lambda: noted(beat.state))
    assert len(beat.submitted()) == 1


def test_a_time_that_was_missed_after_an_unnoted_job_is_not_taken_for_it(
    store: Store, tmp_path: Path
) -> None:
    beat = Beat(store, tmp_path, often={"schedule": 3600})
    beat.note(hours=5)
    before = beat.state.read_text()
    with beat.running():
        eventually("it is submitted", beat.submitted)
    beat.state.write_text(before)
    with store.redis() as redis:
        token = redis.get("celery-beat:often").split()[0].decode()
        long_ago = datetime.now(UTC) - timedelta(hours=3)
        redis.set("celery-beat:often", f"{token} {long_ago.isoformat()}")

    with beat.running():
        eventually("the next is submitted", lambda: len(beat.submitted()) > 1)
        beat.wait_for_a_pass()
    assert len(beat.submitted()) == 2


@pytest.mark.parametrize("how", ["stop", "freeze", "refuse"])
@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_is_due_without_a_broker_is_submitted_once_it_is_back(
    store: Store, tmp_path: Path, how: str, end: signal.Signals | None
) -> None:
    beat = Beat(store, tmp_path, often={"schedule": 2})
    with beat.running() as process:
        eventually("one is submitted", beat.submitted)
        with unreachable(store, how):
            eventually("it is due", lambda: "retrying" in beat.log.read_text(), 90)
            beat.wait_for_a_pass()
            if end:
                process.send_signal(end)
                process.wait(60)
        before = len(beat.submitted())
        if not end:
            eventually("it is submitted", lambda: len(beat.submitted()) > before)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    if end:
        with beat.running() as process:
            eventually("it is submitted", lambda: len(beat.submitted()) > before)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0

    times = beat.submitted()
    assert len(times) - noted(beat.state) in {0, 1}  # the last one may not be in its state
    # No burst: beat waits between two by its own clock, and one of them may have been delayed.
    assert all(later - earlier > 0.1 for earlier, later in pairwise(times))
    assert "Traceback" not in beat.log.read_text()
    assert "AttributeError" not in beat.log.read_text()


@contextmanager
def unreachable(store: Store, how: str) -> Iterator[None]:
    """Stop or freeze the server, or make it refuse writes, while the block runs."""
    assert store.process
    if how == "stop":
        store.stop()
        yield
        store.start()
    elif how == "freeze":
        store.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            store.process.send_signal(signal.SIGCONT)
    else:
        with store.redis() as redis:
            redis.config_set("min-replicas-to-write", 1)
            yield
            redis.config_set("min-replicas-to-write", 0)


def test_a_queue_that_is_full_holds_up_no_other(store: Store, tmp_path: Path) -> None:
    other = {"task": "factorial.tasks.factorial", "args": [5], "schedule": 3600}
    beat = Beat(store, tmp_path, often={"schedule": 1}, other=other)
    beat.env["QUEUE_MAX_LENGTH"] = "1"
    past = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    with store.redis() as redis:
        redis.xadd("add:stream:3", {"message": "{}"})
        beat.state.write_text(
            json.dumps({each: {"last_run_at": past, "count": 0} for each in ("often", "other")})
        )
        with beat.running():
            eventually("the other is submitted", lambda: beat.submitted("factorial"))
            eventually("an error is logged", lambda: "queue is full" in beat.log.read_text())
            redis.delete("add:stream:3")
            eventually("it is submitted", beat.submitted)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\0\xff" * 100,
        b"[]",
        b'{"often": 5}',
        b'{"often": {"count": 1}}',
        b'{"often": {"last_run_at": "yesterday", "count": 1}}',
        b'{"often": {"last_run_at": 5, "count": 1}}',
        b'{"often": {"last_run_at": "0001-01-01T00:00:00+14:00", "count": 1}}',
        b'{"often": {"last_run_at": "2999-01-01T00:00:00+00:00", "count": 1}}',
        b'{"often": {"last_run_at": "2026-01-01T00:00:00", "count": 1e400}}',
        b"[" * 100_000,
    ],
    ids=lambda state: repr(state[:40]),
)
def test_a_state_that_cannot_be_read_is_begun_anew(
    store: Store, tmp_path: Path, state: bytes
) -> None:
    beat = Beat(store, tmp_path, often={"schedule": 0.5})
    beat.state.write_bytes(state)
    with beat.running():
        eventually("one is submitted", beat.submitted)
    assert "Traceback" not in beat.log.read_text()
