"""What a consumer holds, without a server: acked, released, requeued or dead-lettered."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from celery_streams import scripts, worker_state
from celery_streams.transport.deliveries import ACK_BATCH, DeadMessage, Deliveries
from celery_streams.transport.entries import Result
from tests.support.messages import JOB, message
from tests.support.queues import CONSUMER, Consuming

RESULT = Result(b"celery-task-meta-x", b"{}", 0, b"")


@pytest.fixture
def consuming() -> Iterator[Consuming]:
    """A consumer of the queue add, whose event loop fetches soon."""
    consuming = Consuming("add")
    yield consuming
    consuming.deliveries.close()
    Deliveries.closed.clear()


def deliver(consuming: Consuming, count: int = 1) -> list[str]:
    """Fetch messages and note them as delivered; return their tags."""
    for _ in range(count):
        consuming.queues.put("add", b"{}")
    entries = consuming.queues.fetch(CONSUMER, consuming.queues.streams("add"), count)
    for entry in entries:
        headers = {"x-delivery-count": entry.deliveries or 0}
        held = SimpleNamespace(headers=headers, _raw=message(), acks_early=False)
        consuming.deliveries.add(entry.tag, held)
    return [entry.tag for entry in entries]


def test_an_ack_waits_for_the_next_fetch(consuming: Consuming) -> None:
    [tag] = deliver(consuming)
    consuming.deliveries.ack(tag)

    assert consuming.deliveries.count == 0
    assert tag in consuming.queues.pending
    assert [ack.tag for ack in consuming.deliveries.take_acks()] == [tag]


def test_an_ack_is_sent_at_once_if_no_fetch_is_to_come(consuming: Consuming) -> None:
    [tag] = deliver(consuming)
    consuming.flushes_soon = False
    consuming.deliveries.ack(tag)

    assert not consuming.queues.pending


def test_a_job_that_is_acked_before_it_runs_is_acked_at_once(consuming: Consuming) -> None:
    [tag] = deliver(consuming)
    consuming.deliveries.get(tag).acks_early = True
    consuming.deliveries.ack(tag)

    assert not consuming.queues.pending


def test_a_result_is_stored_with_its_ack(consuming: Consuming) -> None:
    [tag] = deliver(consuming)
    consuming.deliveries.ack_later(tag, RESULT)
    consuming.deliveries.flush()

    assert consuming.queues.results == [RESULT]
    assert not consuming.queues.pending


def test_acks_are_sent_in_bounded_commands(consuming: Consuming) -> None:
    for tag in deliver(consuming, 2 * ACK_BATCH + 1):
        consuming.deliveries.ack_later(tag)
    consuming.queues.calls.clear()
    consuming.deliveries.flush()

    assert consuming.queues.calls == ["fetch"] * 3
    assert not consuming.queues.pending


@pytest.mark.parametrize(
    "error", [ResponseError("OOM command not allowed"), RedisConnectionError("gone")]
)
def test_acks_that_failed_stay_pending(consuming: Consuming, error: Any) -> None:
    [tag] = deliver(consuming)
    consuming.deliveries.ack(tag)
    consuming.queues.refuse = error
    try:
        consuming.deliveries.flush()
    except RedisConnectionError:
        assert error.args == ("gone",)

    assert [ack.tag for ack in consuming.deliveries.pending_acks] == [tag]
    consuming.deliveries.flush()
    assert not consuming.queues.pending


def test_a_requeued_message_counts_until_the_limit_and_then_fails_its_job(
    consuming: Consuming,
) -> None:
    failed: list[DeadMessage] = []
    afterwards: list[int] = []

    def fail(dead: DeadMessage) -> Any:
        assert not consuming.queues.dead, "dead-lettered before the job failed"
        failed.append(dead)
        return lambda: afterwards.append(len(consuming.queues.dead))

    consuming.deliveries.on_dead_letter = fail
    deliver(consuming)
    for deliveries in range(3):
        [tag] = consuming.queues.pending or deliver_again(consuming)
        assert consuming.deliveries.get(tag).headers == {"x-delivery-count": deliveries}
        consuming.deliveries.requeue(tag)

    [(_, reason)] = consuming.queues.dead
    assert reason == (
        "delivered 3 times, and each time its pool process died, or the task requeued it"
    )
    assert [(dead.queue, dead.job_id, dead.reason) for dead in failed] == [("add", JOB, reason)]
    assert afterwards == [1]
    assert consuming.deliveries.count == 0


def deliver_again(consuming: Consuming) -> list[str]:
    """Deliver the message that is waiting."""
    [entry] = consuming.queues.fetch(CONSUMER, consuming.queues.streams("add"), 1)
    headers = {"x-delivery-count": entry.deliveries}
    consuming.deliveries.add(entry.tag, SimpleNamespace(headers=headers, _raw=message()))
    return [entry.tag]


def test_a_worker_that_stops_releases_what_has_not_started(
    consuming: Consuming, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, acked, waiting = deliver(consuming, 3)
    consuming.deliveries.ack(acked)
    monkeypatch.setattr(worker_state, "in_pool", lambda: {running: True})
    monkeypatch.setattr(worker_state, "running", lambda: {running})
    consuming.deliveries.release_waiting()

    assert {*consuming.queues.pending} == {running, acked}
    [released] = consuming.queues.waiting["add"]
    assert released.deliveries == 0, "it does not count as a delivery"
    assert released.tag != waiting
    assert consuming.deliveries.count == 1


def test_a_closed_consumer_keeps_what_runs_until_it_is_acked(
    consuming: Consuming, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, _ = deliver(consuming, 2)
    monkeypatch.setattr(worker_state, "in_pool", lambda: {running: True})
    consuming.deliveries.close()

    assert {*consuming.queues.pending} == {running}
    another = Consuming("add")
    assert another.deliveries.count == 1, "it takes a place of this process' prefetch"
    consuming.deliveries.ack(running)
    assert {*consuming.queues.pending} == {running}, "the thread of the lease acks it"
    assert consuming.deliveries._renewable() is None
    assert not consuming.queues.pending
    assert another.deliveries.count == 0


def test_a_lost_script_is_loaded_again(consuming: Consuming) -> None:
    consuming.refusals.handle(NoScriptError("NOSCRIPT"))

    assert consuming.queues.loaded == [scripts.FETCH]
    assert not consuming.refusals.pause_until


def test_lost_groups_are_created_again(consuming: Consuming) -> None:
    consuming.refusals.handle(ResponseError("NOGROUP No such key"))

    assert consuming.queues.created == ["add"]
    assert not consuming.refusals.pause_until


def test_a_former_primary_is_left_and_its_refusal_logged_once(
    consuming: Consuming, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        consuming.refusals.handle(ReadOnlyError("READONLY You can't write, script: 3f"))

    assert consuming.reconnects == 3
    assert consuming.refusals.pause_until
    assert len(caplog.records) == 1
