"""Queue maintenance, without a server: what it does, and when."""

import json
from time import monotonic
from typing import Any

import pytest
from redis.exceptions import ResponseError

from celery_streams.transport import maintenance
from celery_streams.transport.deliveries import DeadMessage
from celery_streams.transport.entries import Entry
from tests.support.messages import JOB, message
from tests.support.queues import Consuming

TAG = "add:stream:0/1-0"


@pytest.fixture
def consuming() -> Consuming:
    """A consumer of two queues."""
    return Consuming("add", "mul")


def test_a_round_promotes_and_reclaims_in_each_queue_once(consuming: Consuming) -> None:
    consuming.maintenance.run()
    consuming.maintenance.run()  # not due

    assert consuming.queues.calls == ["promote", "promote", "look", "look"]
    assert consuming.maintenance.next_due > monotonic()


def test_a_delayed_message_is_promoted_between_two_rounds(
    consuming: Consuming, monkeypatch: pytest.MonkeyPatch
) -> None:
    consuming.maintenance.run()
    consuming.queues.calls.clear()
    consuming.maintenance.promote_at(consuming.queues.now)
    consuming.maintenance.run()

    assert consuming.queues.calls == ["promote", "promote"]


def test_leases_are_reclaimed_only_after_live_consumers_could_renew_theirs(
    consuming: Consuming, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [monotonic()]
    monkeypatch.setattr(maintenance, "monotonic", lambda: now[0])
    consuming.maintenance.delay_reclaim(uptime=400)  # of a lease of 1,000 s
    consuming.maintenance.reclaim("add")
    now[0] += 599
    consuming.maintenance.reclaim("add")
    now[0] += 2
    consuming.maintenance.reclaim("add")

    assert consuming.queues.calls == ["look", "look", "reclaim"]


@pytest.mark.parametrize("body", [json.dumps(message()).encode(), b'{"id": "%s"' % JOB.encode()])
def test_a_message_that_ended_its_workers_is_dead_lettered(
    consuming: Consuming, body: bytes
) -> None:
    dead: list[DeadMessage] = []
    consuming.deliveries.on_dead_letter = dead.append
    consuming.queues.exhausted = [Entry(TAG, body, 3)]
    consuming.maintenance.reclaim("add")

    [(tag, reason)] = consuming.queues.dead
    assert (tag, reason) == (TAG, "delivered 3 times, and each time its worker died")
    assert [(each.queue, each.job_id) for each in dead] == [("add", JOB)]


def test_a_refusal_pauses_the_consumer_and_other_queues_are_tried_later(
    consuming: Consuming, caplog: pytest.LogCaptureFixture
) -> None:
    consuming.queues.refuse = ResponseError("MISCONF Errors writing to the AOF file")
    consuming.maintenance.run()

    assert consuming.refusals.pause_until > monotonic()
    assert consuming.maintenance.next_due >= consuming.refusals.pause_until
    assert "MISCONF" in caplog.text


def test_a_key_of_a_wrong_type_pauses_no_other_queue(
    consuming: Consuming, caplog: pytest.LogCaptureFixture
) -> None:
    error: Any = ResponseError("WRONGTYPE Operation against a key")
    consuming.queues.refuse = error
    consuming.maintenance.run()

    assert not consuming.refusals.pause_until
    assert consuming.queues.calls == ["promote", "promote", "look", "look"]
    assert "WRONGTYPE" in caplog.text
