"""Where a fetched message goes, without a server."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from celery_streams.transport.deliveries import DeadMessage
from celery_streams.transport.dispatch import Dispatch
from celery_streams.transport.entries import Entry
from tests.support.messages import JOB, message
from tests.support.queues import CONSUMER, Consuming


class Runner:
    """Runs the messages of a task that is called quick; takes those up to `last`."""

    limit = 10

    def __init__(self, last: int = 100) -> None:
        self.last = last
        self.ran: list[str] = []
        self.ended_jobs = 0
        self.fetches: list[tuple[int, bool]] = []

    def begin(self, entries: Sequence[Entry]) -> None:
        """Begin."""

    def claim(self, position: int) -> bool:
        """Return True for the first messages."""
        return position <= self.last

    def refresh(self) -> None:
        """Do nothing."""

    def run(self, entry: Entry) -> bool:
        """Run a message of a task that is called quick."""
        is_quick = b"quick" in entry.message
        if is_quick:
            self.ran.append(entry.tag)
        return is_quick

    def ended(self) -> None:
        """Count the jobs."""
        self.ended_jobs += 1

    def flush(self) -> None:
        """Do nothing."""

    def end(self, count: int, *, is_all: bool) -> None:
        """Note the fetch."""
        self.fetches.append((count, is_all))


class Program:
    """A program with a prefetch limit that consumes from the queue add."""

    def __init__(self, prefetch: int = 100, **lifetimes: int) -> None:
        self.consuming = Consuming("add")
        self.queues, self.deliveries = self.consuming.queues, self.consuming.deliveries
        self.prefetch = prefetch
        self.consumers: dict[str, Any] = {"add": None}
        self.delivered: list[dict[str, Any]] = []
        self.dead: list[DeadMessage] = []
        self.deliveries.on_dead_letter = self.dead.append
        self.dispatch = Dispatch(
            self.queues,
            self.deliveries,
            self.consuming.refusals,
            self.consuming.maintenance,
            consumers=self.consumers,
            deliver=lambda each, queue: self.delivered.append(each),
            can_consume=lambda: len(self.delivered) < self.prefetch,
            message_lifetimes=lifetimes,
            max_message_bytes=10_000,
        )
        self.consuming.maintenance.promote("add")  # the server's clock is known

    def fetch(self, *messages: bytes, deliveries: int | None = None) -> list[Entry]:
        """Publish messages and fetch them."""
        for each in messages:
            self.queues.put("add", each, deliveries)
        return self.queues.fetch(CONSUMER, self.queues.streams("add"), len(messages))


@pytest.fixture
def program() -> Program:
    """A program without limits of interest."""
    return Program()


def job(properties: Any = (), **headers: Any) -> bytes:
    """Return a job's message."""
    return json.dumps(message(headers, properties)).encode()


def test_what_is_above_the_prefetch_limit_is_released() -> None:
    program = Program(prefetch=2)
    left_over = program.dispatch.deliver_all(program.fetch(*[job()] * 5))

    assert len(program.delivered) == 2
    assert len(left_over) == len(program.queues.waiting["add"]) == 3


def test_jobs_run_here_or_are_delivered(program: Program) -> None:
    entries = program.fetch(job(), *[job(task="quick")] * 3, job())
    runner = Runner()
    program.dispatch.run_all(entries, runner)

    assert runner.ran == [entry.tag for entry in entries[1:4]]
    assert len(program.delivered) == 2
    assert runner.ended_jobs == 5
    assert runner.fetches == [(5, True)]


def test_what_other_processes_should_take_is_released(program: Program) -> None:
    entries = program.fetch(*[job(task="quick")] * 5)
    runner = Runner(last=1)
    program.dispatch.run_all(entries, runner)

    assert runner.ran == [entry.tag for entry in entries[:2]]
    assert runner.fetches == [(5, False)]
    assert len(program.queues.waiting["add"]) == 3


def test_messages_of_a_cancelled_consumer_are_released(program: Program) -> None:
    entries = program.fetch(job())
    program.consumers.clear()

    assert program.dispatch.deliver_all(entries) == entries
    assert not program.delivered


def test_a_message_before_its_time_is_delayed_and_comes_when_it_is_due(program: Program) -> None:
    due = program.queues.now + 60
    eta = datetime.fromtimestamp(due, UTC).isoformat()
    program.dispatch.deliver_all(program.fetch(job(eta=eta)))

    assert not program.delivered
    assert [moment for moment, _ in program.queues.delayed_until] == [due]
    program.queues.now = due
    program.consuming.maintenance.promote("add")
    [entry] = program.queues.fetch(CONSUMER, program.queues.streams("add"), 1)
    program.dispatch.deliver_all([entry])
    assert len(program.delivered) == 1


def test_a_malformed_message_is_dead_lettered(program: Program) -> None:
    program.dispatch.deliver_all(
        program.fetch(b'{"headers": {"id": "%s"}, "reply_to": "me"' % JOB.encode())
    )

    [dead] = program.dead
    assert dead.job_id == JOB
    assert dead.reason.startswith("the message is not JSON")
    assert dead.envelope["properties"]["reply_to"] == "me"
    assert program.queues.dead


def test_a_job_that_waited_too_long_is_dead_lettered_and_a_message_is_dropped() -> None:
    program = Program(add=500)
    other = message()
    del other["headers"]["task"]
    entries = program.fetch(job(), json.dumps(other).encode())
    program.queues.now += 1
    program.consuming.maintenance.promote("add")
    program.dispatch.deliver_all(entries)

    assert [dead.job_id for dead in program.dead] == [JOB]
    assert not program.delivered


def test_a_producer_cannot_forge_a_delivery_count(program: Program) -> None:
    headers = {"x-delivery-count": 7}
    program.dispatch.deliver_all(program.fetch(job(**headers)))
    program.dispatch.deliver_all(program.fetch(job(**headers), deliveries=2))

    first, second = program.delivered
    assert "x-delivery-count" not in first["headers"]
    assert second["headers"]["x-delivery-count"] == 2
    assert second["properties"]["delivery_info"]["redelivered"] is True


def test_a_message_without_acks_is_acked_when_it_is_delivered(program: Program) -> None:
    program.dispatch.no_ack.add("add")
    program.dispatch.deliver_all(program.fetch(job()))

    assert len(program.delivered) == 1
    assert not program.queues.pending


def test_a_program_that_takes_one_a_call_gets_what_was_kept(program: Program) -> None:
    program.dispatch.keep(program.fetch(job(), job()))

    assert program.dispatch.has_kept
    assert program.dispatch.deliver_kept()
    assert program.dispatch.deliver_kept()
    assert not program.dispatch.deliver_kept()
    assert len(program.delivered) == 2


def test_what_was_kept_is_released_with_its_consumer(program: Program) -> None:
    program.dispatch.keep(program.fetch(job()))
    program.consumers.clear()
    program.dispatch.keep(())

    assert not program.dispatch.has_kept
    assert not program.queues.pending
