"""The memory that the processes of a pool share."""

import json
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from time import monotonic

import pytest

from celery_streams.worker.scoreboard import EVENTS_BYTES, LOCK_TIMEOUT, Scoreboard, Slot
from tests.support.waiting import eventually

TAGS = ["add:stream:0/1-0", "add:stream:0/1-1", "add:stream:0/2-0"]


@pytest.fixture
def scoreboard() -> Scoreboard:
    """A scoreboard for two tasks."""
    return Scoreboard(["add", "mul"])


@pytest.fixture
def slot(scoreboard: Scoreboard) -> Slot:
    """A slot whose process has fetched."""
    slot = scoreboard.add()
    slot.fetched(TAGS)
    return slot


def open_files() -> int:
    """Return the number of this process' open files."""
    return len([*Path("/proc/self/fd").iterdir()])


def in_process(function: Callable[[], object]) -> int:
    """Return the exit status of a forked process that calls a function."""
    process = get_context("fork").Process(target=function)
    process.start()
    process.join(30)
    return int(process.exitcode or 0)


def test_what_another_process_runs_is_seen(slot: Slot) -> None:
    assert slot.running is None

    def run() -> None:
        slot.claim(1)
        slot.set_limits(2.5, 5)
        slot.keep(b"message")

    assert in_process(run) == 0
    running = slot.running
    assert running is not None
    assert (running.tag, running.soft, running.hard) == (TAGS[1], 2.5, 5)
    assert monotonic() - running.started < 30
    assert slot.kept == b"message"
    slot.ended()
    assert slot.running is None
    assert slot.kept == b""


def test_limits_are_those_of_one_job(slot: Slot) -> None:
    slot.claim(0)
    slot.set_limits(2.5, 5)
    slot.claim(1)

    assert slot.running is not None
    assert slot.running[2:] == (0, 0)


def test_the_rest_is_taken_away_once(slot: Slot) -> None:
    assert slot.take_rest(0) == []  # nothing runs
    assert slot.claim(0)
    assert slot.take_rest(60) == []  # not for long
    assert slot.take_rest(0) == TAGS[1:]
    assert slot.take_rest(0) == []
    assert not slot.claim(1)
    slot.fetched(TAGS)
    assert slot.claim(1)


def test_a_process_that_dies_with_the_lock_holds_up_nobody(slot: Slot) -> None:
    def die() -> None:
        slot.claim(0)
        slot._lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_process(die) == -signal.SIGKILL
    began = monotonic()
    running = slot.running
    assert running is not None
    assert running.tag == TAGS[0]
    assert slot.take_rest(0) == []  # it may be about to take the next one
    assert slot.stop_leading() is False
    assert monotonic() - began > LOCK_TIMEOUT


def test_more_tags_than_there_is_room_for_cannot_be_claimed(scoreboard: Scoreboard) -> None:
    slot, other = scoreboard.add(), scoreboard.add()
    other.fetched(TAGS)
    long = [f"{'q' * 4000}:stream:0/{number}-0" for number in range(200)]
    slot.count({"add": 7})
    slot.fetched(long)

    taken = slot.tags
    assert 0 < len(taken) < len(long)
    assert taken == long[: len(taken)]
    assert slot.claim(len(taken) - 1)
    assert not slot.claim(len(taken))
    assert (slot.totals, other.tags) == ({"add": 7, "mul": 0}, TAGS)


def test_a_slot_that_is_used_again_is_empty(scoreboard: Scoreboard) -> None:
    slot = scoreboard.add()
    slot.fetched(TAGS)
    slot.claim(0)
    slot.lead()
    slot.count({"add": 3, "unknown": 1})
    assert slot.totals == {"add": 3, "mul": 0}
    scoreboard.remove(slot)

    again = scoreboard.add()
    assert again.index == slot.index
    assert (again.running, again.tags, again.totals) == (None, [], {"add": 0, "mul": 0})
    assert not again.fields.leads


def test_commands_are_read_from_where_the_news_were(scoreboard: Scoreboard) -> None:
    before = scoreboard.news
    scoreboard.repeat("rate_limit", {"task_name": "add", "rate_limit": "1/s"})
    after = scoreboard.news
    scoreboard.repeat("time_limit", {"hard": 2})
    scoreboard.note_revoked()

    def look() -> None:
        assert [name for name, _ in scoreboard.commands(before[1])] == ["rate_limit", "time_limit"]
        assert scoreboard.commands(after[1]) == [["time_limit", {"hard": 2}]]
        assert scoreboard.news[0] == before[0] + 1

    assert before != after != scoreboard.news
    assert in_process(look) == 0


def test_files_of_ended_processes_are_closed(scoreboard: Scoreboard) -> None:
    scoreboard.remove(scoreboard.add())
    before = open_files()
    for _ in range(20):
        scoreboard.remove(scoreboard.add())

    eventually("none is left open", lambda: open_files() <= before)


def test_events_of_a_process_that_has_ended_are_there_until_they_are_dropped(slot: Slot) -> None:
    assert slot.events == b""

    def collect() -> None:
        assert slot.add_event(b'{"a": 1}')
        assert slot.add_event(b"{}")

    assert in_process(collect) == 0
    assert json.loads(slot.events) == [{"a": 1}, {}]
    slot.drop_events()
    assert slot.events == b""


def test_events_take_no_more_than_their_room(scoreboard: Scoreboard, slot: Slot) -> None:
    beside = scoreboard.add()
    beside.fetched(TAGS)
    slot.count({"add": 7})
    assert not slot.add_event(b"x" * EVENTS_BYTES)
    assert slot.add_event(b"1" * (EVENTS_BYTES - 3))
    assert slot.add_event(b"2")
    assert not slot.add_event(b"")
    assert slot.events.endswith(b"1,2]")
    assert (slot.tags, beside.tags, slot.totals) == (TAGS, TAGS, {"add": 7, "mul": 0})
