"""Beat: it submits by the clock, remembers what it did, and finds a wrong schedule at its start."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from callers.beat import StateFile, check
from callers.client import Client
from celeryconfig import beat_schedule
from local.server import ROOT
from tests.local.local import Local
from tests.local.store import Store
from tests.waiting import eventually

EVERY_HALF_SECOND = {"often": {"task": "add.tasks.tsum", "args": [[4, 6]], "schedule": 0.5}}


def sums(client: Client) -> int:
    """Return how many jobs of beat the workers did."""
    stats = client.app.control.inspect(timeout=1).stats() or {}
    return sum(worker["total"].get("add.tasks.tsum", 0) for worker in stats.values())


def test_it_submits_by_the_clock_and_goes_on_where_it_stopped(
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
            least = sums(client) + 2
            with own_local.own_worker("tests.local.quick_beat", **variables) as beat:
                eventually("jobs done", lambda least=least: sums(client) >= least)  # type: ignore[misc]
            assert beat.returncode == 0, own_local.own_log.read_text()
            runs.append(total_of(Path(variables["BEAT_STATE"])))

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
def test_a_wrong_schedule_is_said_at_the_start_in_one_line(
    local: Local, tmp_path: Path, entry: dict[str, Any], words: str
) -> None:
    schedule = json.dumps({"x": entry})
    state = str(tmp_path / "schedule")
    done = local.command("tests.local.quick_beat", TEST_SCHEDULE=schedule, BEAT_STATE=state)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_state_that_is_no_file_is_left_alone(local: Local, tmp_path: Path) -> None:
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


@contextmanager
def beat_of(store: Store, folder: Path, seconds: float) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a beat that submits a job after each time, and note what it logs."""
    entry = {"task": "add.tasks.tsum", "args": [[4, 6]], "schedule": seconds}
    env = {
        **os.environ,
        "TEST_SCHEDULE": json.dumps({"often": entry}),
        "BEAT_STATE": str(folder / "schedule"),
        "CELERY_BROKER_URL": store.url(),
        "CELERY_RESULT_BACKEND": store.url(),
    }
    command = [sys.executable, "-m", "tests.local.quick_beat"]
    with (folder / "log").open("a") as log:
        beat = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield beat
        finally:
            beat.kill()
            beat.wait()


def submitted(store: Store) -> int:
    """Return how many jobs beat has submitted."""
    with store.redis() as redis:
        return int(redis.xlen("add:stream:3"))


def test_a_beat_that_is_killed_has_noted_what_it_submitted(store: Store, tmp_path: Path) -> None:
    with beat_of(store, tmp_path, 2) as beat:
        eventually("two are submitted", lambda: submitted(store) >= 2)
        noted = tmp_path / "schedule"
        # The second is noted after it is submitted, and before the third.
        eventually("it is noted", lambda: total_of(noted) >= 2 or submitted(store) >= 3)
        beat.kill()
        beat.wait()
        count = submitted(store)
    assert total_of(noted) >= count - 1 >= 1


def total_of(noted: Path) -> int:
    """Return how many jobs beat has noted."""
    return int(StateFile.open(str(noted))["entries"]["often"].total_run_count)


def test_a_state_that_is_damaged_is_begun_anew(store: Store, tmp_path: Path) -> None:
    (tmp_path / "schedule").write_bytes(b"\x80\x04damaged")
    with beat_of(store, tmp_path, 1):
        eventually("one is submitted", lambda: submitted(store) >= 1)
        eventually("it is noted", lambda: total_of(tmp_path / "schedule") >= 1)


@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_a_job_that_is_due_while_the_broker_is_away_is_submitted_when_it_is_back(
    store: Store, tmp_path: Path, how: str
) -> None:
    log = tmp_path / "log"
    with beat_of(store, tmp_path, 3):
        eventually("one is submitted", lambda: submitted(store) >= 1)
        assert store.process
        if how == "stop":
            store.stop()
        else:
            store.process.send_signal(signal.SIGSTOP)
        due = log.read_text().count("submitting") + 1
        eventually("it is due", lambda: log.read_text().count("submitting") >= due)
        if how == "stop":
            eventually("it was tried", lambda: "trying again" in log.read_text(), 60)
        if how == "stop":
            store.start()
        else:
            store.process.send_signal(signal.SIGCONT)
        before = submitted(store)
        eventually("it is submitted", lambda: submitted(store) > before)
    assert "Traceback" not in log.read_text()
    assert "AttributeError" not in log.read_text()
