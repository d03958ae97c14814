"""What is fuzzed: each target reads bytes as the cluster does, and lets nothing else through.

A target raises for an error that is not documented, and where a bound is broken. That each input
ends in time and in little memory, the fuzzer sees to.
"""

import json
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery.states import READY_STATES
from kombu import serialization
from kombu.exceptions import ContentDisallowed, DecodeError

from celery_streams import dead_letters
from celery_streams.errors import Malformed
from celery_streams.results.buffer import OVERHEAD
from celery_streams.results.consumer import RESULT_BUFFER_BYTES
from celery_streams.transport import entries, validation
from celery_streams.transport.channel import Channel
from celery_streams.transport.dispatch import Dispatch
from celery_streams.transport.validation import MAX_BYTES, MAX_NAME
from celery_streams.worker import messages
from cluster.errors import OutOfMemory, Unreadable, ValueGone
from cluster.values.codec import unpack
from tests.support.queues import Consuming

#: The job that is asked for.
JOB = "8d3f"
#: Characters of an error's text, one sentence, which may quote a name.
MAX_TEXT = 2 * MAX_NAME
HEADERS = {"task": "add.tasks.add", "id": JOB}

_app: "Celery[Any]" = Celery(
    "fuzz",
    backend="cluster.values.backend:RedisBackend+redis://localhost:1/0",
    broker="memory://",
    set_as_current=False,
)
_backend: Any = _app.backend
_results = _backend.result_consumer


_said: list[str] = []


def _sentence(error: Exception) -> None:
    assert len(str(error)) <= MAX_TEXT, f"an error of {len(str(error))} characters"


def check_envelope(data: bytes) -> None:
    """Read a message as a channel does."""
    try:
        found = validation.check(data)
    except Malformed as error:
        _sentence(error)
        for name in (error.job_id, error.reply_to):
            assert name is None or 0 < len(name.encode()) <= 4 * MAX_NAME
        return
    assert isinstance(found["headers"], dict)
    validation.check_parsed(found)
    validation.sender(found)


def check_call(data: bytes) -> None:
    """Read a task's body as a worker does."""
    try:
        payload = serialization.loads(data, "application/json", "utf-8", accept=_backend.accept)
    except (DecodeError, Unreadable):
        return
    for headers in (HEADERS, {}):
        try:
            validation.check_call(payload, headers)
            validation.is_deep(payload)
        except Malformed as error:
            _sentence(error)


_consuming = Consuming("add")
_dispatch = Dispatch(
    _consuming.queues,
    _consuming.deliveries,
    _consuming.refusals,
    _consuming.maintenance,
    consumers={"add": None},
    deliver=lambda message, queue: None,
    can_consume=lambda: True,
    message_lifetimes={},
    max_message_bytes=MAX_BYTES,
)


class _Channel(Channel):
    """A channel without a server."""

    def __init__(self) -> None:
        self.closed = True  # it has nothing to close

    def close(self) -> None:
        """Close nothing."""


_channel = _Channel()


def check_entry(data: bytes) -> None:
    """Read an entry of a stream, all the way to the worker: fields are apart by a line's end."""
    fields = data.split(b"\n")
    if len(fields) == 1:
        fields = [b"message", data]
    elif len(fields) % 2:
        fields.append(b"")
    [entry] = entries.fetched([[b"add:stream:0", [[b"1-0", fields]]]])
    assert entry.deliveries is None or 0 <= entry.deliveries < 10**18
    _consuming.queues.pending[entry.tag] = entry
    found = _dispatch.check(entry, "add")
    _consuming.queues.pending.clear()
    _consuming.queues.delayed_until.clear()
    _consuming.queues.dead.clear()
    if found is None:
        return
    message = _channel.Message(found, channel=_channel)
    message.accept = {"application/json"}
    try:
        messages.check_message(message)
    except (Malformed, Unreadable, DecodeError, ContentDisallowed) as error:
        messages.reason_of(error)
    messages.job_id_of(message, None)


def _nothing_there(reference: Any, into: memoryview) -> None:
    raise ValueGone


def check_value(data: bytes) -> None:
    """Read a value of an argument or a result."""
    try:
        value = serialization.loads(data, "application/json", "utf-8", accept=_backend.accept)
    except (DecodeError, Unreadable):
        return
    try:
        unpack(value, _nothing_there)
    except (Unreadable, OutOfMemory, ValueGone) as error:
        _sentence(error)


def check_result(data: bytes) -> None:
    """Read what is stored of a job."""
    try:
        meta = _backend.meta_of(JOB, data)
    except Unreadable as error:
        _sentence(error)
        return
    assert meta["task_id"] == JOB
    result: Any = AsyncResult(JOB, backend=_backend, app=_app)
    result._set_cache(meta)
    if meta["status"] in READY_STATES:
        try:
            result.maybe_throw()
        except Exception as error:  # noqa: BLE001 - the job's own
            _said.append(str(error))
            _said.clear()


def check_notice(data: bytes) -> None:
    """Hear a notice, and keep no more than a bound of what it says."""
    _results._take_in(data)
    early = _results.buffer
    assert early._size <= RESULT_BUFFER_BYTES
    assert len(early._texts) <= RESULT_BUFFER_BYTES // OVERHEAD
    assert not _results._sent
    assert not _results._waiters


def check_letter(data: bytes) -> None:
    """Show a dead letter."""
    letter = dead_letters._letter("add", b"1-0", {b"message": data, b"deliveries": data[:20]})
    for shown in (letter.id, letter.task, letter.job_id):
        assert shown is None or isinstance(shown, str)
    assert isinstance(letter.envelope, dict)
    json.dumps(letter.body, default=repr)


#: What is fuzzed, by its name.
TARGETS: dict[str, Callable[[bytes], None]] = {
    "envelope": check_envelope,
    "call": check_call,
    "entry": check_entry,
    "value": check_value,
    "result": check_result,
    "notice": check_notice,
    "letter": check_letter,
}


def check_any(data: bytes) -> None:
    """Give an input to the target that its first byte names."""
    names = [*TARGETS]
    if data:
        TARGETS[names[data[0] % len(names)]](data[1:])
