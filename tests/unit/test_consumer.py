"""What becomes of a message that a worker cannot do, with any broker."""

import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import NotRegistered
from celery.worker import consumer as celerys
from kombu.compression import compress
from kombu.transport.virtual import Channel as VirtualChannel
from kombu.transport.virtual import Message

from celery_streams.transport import channel as streams_channel
from celery_streams.transport.deliveries import DeadMessage
from celery_streams.transport.validation import MAX_BYTES
from celery_streams.worker.consumer import Consumer
from cluster.errors import DeadLetter
from tests.support.messages import JOB, body, message


class Channel(VirtualChannel):
    """A channel of any broker, which notes what becomes of messages."""

    Message = streams_channel.Message
    max_message_bytes = MAX_BYTES

    def __init__(self) -> None:
        self.became: list[tuple[str, str]] = []

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT002
        """Note that a message is done."""
        self.became.append(("done", delivery_tag))

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT002
        """Note that a message was given back."""
        self.became.append(("again" if requeue else "rejected", delivery_tag))


class StreamsChannel(streams_channel.Channel):
    """A channel of ours, without a server."""

    def __init__(self) -> None:
        self.became: list[tuple[str, str]] = []
        self.max_message_bytes = MAX_BYTES
        self.closed = True  # it has nothing to close
        self.deliveries: Any = SimpleNamespace(
            dead_letter=lambda tag, reason: self.became.append((reason, tag))
        )

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT002
        """Note that a message is done."""
        self.became.append(("done", delivery_tag))

    def close(self) -> None:
        """Close nothing."""


class Away(Exception):
    """What the connection raises when the broker is gone."""


class Refused(Exception):
    """What it raises when the broker refuses a command."""


@pytest.fixture
def failed() -> list[tuple[str, Any, Any]]:
    """The jobs that were failed, each with its error and its request."""
    return []


@pytest.fixture
def worker(failed: list[tuple[str, Any, Any]]) -> Consumer:
    """A consumer without a worker around it."""
    worker = object.__new__(Consumer)
    exchange = SimpleNamespace(name="celery.pidbox")
    worker.app = SimpleNamespace(
        tasks={},
        control=SimpleNamespace(mailbox=SimpleNamespace(exchange=exchange)),
        backend=SimpleNamespace(
            mark_as_failure=lambda job_id, error, request: failed.append((job_id, error, request))
        ),
    )
    worker.connection_errors = (Away, KeyError)  # as kombu's transport for Redis has it
    worker.channel_errors = (Refused,)
    worker.event_dispatcher = None
    worker.task_consumer = SimpleNamespace(channel=StreamsChannel(), accept={"application/json"})
    return worker


def delivered(channel: Any, headers: Any = (), **parts: Any) -> Any:
    """Return a message as a channel delivers it."""
    sent = message(headers, {"delivery_tag": "add:stream:0/1-0"}) | parts
    read = Message(sent, channel)
    read.accept = {"application/json"}
    return read


def handler(
    worker: Consumer, monkeypatch: pytest.MonkeyPatch, handle: Callable[[Any], None]
) -> Callable[[Any], None]:
    """Return the consumer's handler around `handle` instead of Celery's, with another broker."""
    worker.task_consumer = SimpleNamespace(channel=Channel(), accept={"application/json"})
    monkeypatch.setattr(celerys.Consumer, "create_task_handler", lambda _: handle)
    return worker.create_task_handler()


def raising(error: BaseException) -> Callable[[Any], None]:
    """Return a handler that raises."""

    def handle(message: Any) -> None:
        raise error

    return handle


def test_a_good_message_is_celerys(worker: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    good = delivered(StreamsChannel())
    handler(worker, monkeypatch, taken.append)(good)

    assert taken == [good]
    assert not good.channel.became


def test_a_bad_message_never_gets_to_celery(
    worker: Consumer, monkeypatch: pytest.MonkeyPatch, failed: Any
) -> None:
    bad = delivered(StreamsChannel(), {"timelimit": "abc"})
    handler(worker, monkeypatch, raising(AssertionError()))(bad)

    [(reason, tag)] = bad.channel.became
    [(job_id, error, request)] = failed
    assert reason.startswith("the task's header 'timelimit' is not a hard and a soft limit")
    assert (tag, job_id, request.reply_to) == ("add:stream:0/1-0", JOB, "caller")
    assert type(error) is DeadLetter
    assert str(error) == f"{reason}; its message is kept in add:dead"


@pytest.mark.parametrize("error", [KeyError("id"), ValueError("x"), RecursionError(), TypeError()])
def test_what_celery_raises_of_a_message_is_the_messages(
    worker: Consumer, monkeypatch: pytest.MonkeyPatch, failed: Any, error: Exception
) -> None:
    bad = delivered(StreamsChannel())
    handler(worker, monkeypatch, raising(error))(bad)

    assert type(error).__name__ in bad.channel.became[0][0]
    assert failed[0][0] == JOB


@pytest.mark.parametrize(
    "error", [Away(), Refused(), MemoryError(), SystemExit(1), KeyboardInterrupt()]
)
def test_what_is_not_the_messages_goes_on_to_celery(
    worker: Consumer, monkeypatch: pytest.MonkeyPatch, failed: Any, error: BaseException
) -> None:
    good = delivered(StreamsChannel())
    with pytest.raises(type(error)):
        handler(worker, monkeypatch, raising(error))(good)

    assert (good.channel.became, failed) == ([], [])


def test_another_broker_is_given_the_message_back(worker: Consumer, failed: Any) -> None:
    ways: list[Callable[[Any], None]] = [
        lambda bad: worker.on_decode_error(bad, ValueError("x")),
        lambda bad: worker.on_invalid_task(None, bad, ValueError("x")),
        lambda bad: worker.on_unknown_message(None, bad),
        lambda bad: worker.on_unknown_task(None, bad, KeyError("x")),
    ]
    for bury in ways:
        bad = delivered(Channel())
        bury(bad)
        assert bad.channel.became == [("rejected", bad.delivery_tag)]

    assert [job_id for job_id, _, _ in failed] == [JOB] * 4
    assert str(failed[0][1]).endswith("its message is rejected at the broker")


def test_an_unknown_task_fails_as_in_celery_with_all_who_wait_for_it(
    worker: Consumer, failed: Any
) -> None:
    chord = {"task": "add.tasks.tsum", "args": [], "kwargs": {}, "options": {}}
    call = [[4, 6], {}, {"chord": chord, "errbacks": [chord]}]
    unknown = delivered(StreamsChannel(), {"group": "g"}, body=body(json.dumps(call).encode()))
    worker.on_unknown_task(None, unknown, KeyError("add.tasks.add"))

    [(_, error, request)] = failed
    assert isinstance(error, NotRegistered)
    assert (request.id, request.group, request.chord) == (JOB, "g", chord)
    assert request.errbacks == [chord]
    assert unknown.channel.became[0][0] == "the worker has no task 'add.tasks.add'"


def test_what_the_channel_buries_is_answered_with_all_who_wait_for_it(
    worker: Consumer, failed: Any
) -> None:
    chord = {"task": "add.tasks.tsum", "args": [], "kwargs": {}, "options": {}}
    call = body(json.dumps([[4, 6], {}, {"chord": chord}]).encode())
    dead = DeadMessage("add", JOB, "delivered 3 times", message({"group": "g"}, body=call))
    answer_the_rest = worker.on_dead_letter(dead)
    worker.on_dead_letter(DeadMessage("add", "in-pieces", "the message is no JSON", {}))
    worker.on_dead_letter(DeadMessage("add", None, "the message is no JSON", {}))

    # From the headers alone, as long as the message is in its queue.
    assert [(job_id, request.chord, request.reply_to) for job_id, _, request in failed] == [
        (JOB, None, "caller"),
        ("in-pieces", None, None),
    ]
    assert str(failed[0][1]) == "delivered 3 times; its message is kept in add:dead"
    assert answer_the_rest
    answer_the_rest()
    assert (failed[2][0], failed[2][2].group, failed[2][2].chord) == (JOB, "g", chord)


@pytest.mark.parametrize("method", ["gzip", "bzip2", "lzma"])
def test_a_body_that_ended_its_workers_is_not_expanded_again(
    worker: Consumer, failed: Any, method: str
) -> None:
    bomb, content_type = compress(b"0" * 10_000_000, method)
    poison = message({"compression": content_type}, body=body(bomb))
    worker.task_consumer.channel.max_message_bytes = 1_000_000
    answer_the_rest = worker.on_dead_letter(DeadMessage("add", JOB, "delivered 3 times", poison))
    assert answer_the_rest
    answer_the_rest()

    assert [job_id for job_id, _, _ in failed] == [JOB]


def test_a_message_without_an_id_is_kept_all_the_same(worker: Consumer, failed: Any) -> None:
    bad = delivered(StreamsChannel(), headers={}, body="")
    bad.headers, bad.properties = {}, {}
    worker.on_unknown_message(None, bad)

    assert bad.channel.became == [("the message is no task", bad.delivery_tag)]
    assert not failed


@pytest.mark.parametrize("error", [TypeError("unheard"), Refused("unheard")])
def test_an_answer_that_fails_does_not_keep_the_message(
    worker: Consumer, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    worker.app.backend.mark_as_failure = refuse
    bad = delivered(StreamsChannel())
    with caplog.at_level(logging.ERROR):
        worker.on_unknown_message(None, bad)

    assert bad.channel.became
    assert f"Job {JOB} cannot be failed as a whole: {error!r}" in caplog.text


def test_a_message_stays_where_its_answer_cannot_be_stored_for_now(worker: Consumer) -> None:
    worker.app.backend.mark_as_failure = lambda *_, **__: raising(Away())(None)
    bad = delivered(StreamsChannel())

    with pytest.raises(Away):
        worker.on_unknown_message(None, bad)
    assert not bad.channel.became


def test_a_message_that_is_done_is_not_buried(worker: Consumer, failed: Any) -> None:
    done = delivered(StreamsChannel())
    done.ack()
    worker.on_invalid_task(None, done, ValueError("x"))

    assert done.channel.became == [("done", done.delivery_tag)]


def test_a_buried_message_is_not_acknowledged_again(worker: Consumer) -> None:
    bad = delivered(StreamsChannel())
    worker.on_unknown_message(None, bad)

    assert bad.acknowledged


def test_the_worker_says_one_line(worker: Consumer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        worker.on_decode_error(delivered(StreamsChannel()), ValueError("a\nb"))

    [record] = caplog.records
    assert record.getMessage() == (
        f"Job {JOB} is a dead letter: the worker cannot read the message: ValueError: a b"
    )
    assert not record.exc_info


def test_the_app_needs_no_other_consumer() -> None:
    app: Celery[Any] = Celery(set_as_current=False)
    app.config_from_object("celeryconfig")

    assert app.conf.worker_consumer == "celery_streams:Consumer"
