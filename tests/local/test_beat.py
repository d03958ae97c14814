"""Beat: it submits by the clock, remembers what it did, and finds a wrong schedule at its start."""

import json
import shelve
from pathlib import Path
from typing import Any

import pytest

from callers.beat import check
from callers.client import Client
from celeryconfig import beat_schedule
from tests.local.local import Local
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
        for least in (2, 4):
            with own_local.own_worker("tests.local.quick_beat", **variables) as beat:
                eventually("jobs done", lambda least=least: sums(client) >= least)  # type: ignore[misc]
            assert beat.returncode == 0, own_local.own_log.read_text()
            with shelve.open(variables["BEAT_STATE"]) as state:  # noqa: S301 - beat's own file
                runs.append(state["entries"]["often"].total_run_count)

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
