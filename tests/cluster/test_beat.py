"""Beat in its container: it submits by the clock, and its state outlives it."""

import json
from collections.abc import Iterator

import pytest

from callers.client import Client
from tests.support.stack import Stack
from tests.support.waiting import eventually

PROFILE = ("--profile", "beat")


@pytest.fixture
def beat(stack: Stack) -> Iterator[str]:
    """The id of the running container."""
    stack.compose(*PROFILE, "up", "--detach", "--wait", "--no-deps", "beat")
    yield stack.compose(*PROFILE, "ps", "--quiet", "beat")
    stack.compose(*PROFILE, "rm", "--stop", "--force", "beat")


def test_it_submits_by_the_clock_as_a_user_that_is_not_root(
    stack: Stack, client: Client, beat: str
) -> None:
    before = done(client)
    eventually(
        "a job by the clock",
        lambda: "submitted add-every-ten-seconds" in stack.compose(*PROFILE, "logs", "beat"),
    )
    eventually("its work", lambda: done(client) > before)

    assert stack.compose(*PROFILE, "exec", "-T", "beat", "id", "-u") == "10001"


def test_its_state_outlives_its_container(stack: Stack, beat: str) -> None:
    def submitted() -> int:
        state = stack.compose(*PROFILE, "exec", "-T", "beat", "cat", "/var/lib/beat/schedule")
        return int(json.loads(state)["add-every-ten-seconds"]["count"])

    before = eventually("a job is noted", submitted)
    stack.compose(*PROFILE, "up", "--detach", "--wait", "--no-deps", "--force-recreate", "beat")

    assert submitted() >= before


def done(client: Client) -> int:
    """Return the number of sums that the workers have run."""
    stats = client.app.control.inspect(timeout=2).stats() or {}
    return sum(worker["total"].get("add.tasks.add", 0) for worker in stats.values())
