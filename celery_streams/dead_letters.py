"""Dead letters: what no worker can do, kept with the reason until somebody looks.

Each queue has its own, a stream. A letter's id is unique over all queues: `add:1700000000000-0`.
"""

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from celery.states import FAILURE
from kombu import serialization
from redis import Redis

from celery_streams import scripts
from celery_streams.compression import decompress
from celery_streams.errors import ClusterError, Unreadable
from celery_streams.transport import keys, validation
from celery_streams.transport.validation import Malformed

#: Kombu's priority steps, where the transport's options name no others.
PRIORITY_STEPS = (0, 3, 6, 9)
#: Letters that are read at a time: each is as large as its message.
BATCH = 100

_ID = re.compile(r"(?P<queue>.+):(?P<entry>\d{1,20}-\d{1,20})", re.DOTALL)
_SUFFIX = keys.dead("")


class UnknownLetter(ClusterError):
    """There is no dead letter of this id: it was replayed or dropped, or never was."""


class NotReplayable(ClusterError):
    """The message of a dead letter is one that no worker can take, whatever changes."""


@dataclass(frozen=True)
class Letter:
    """A dead letter."""

    queue: str
    #: Its entry in the stream.
    entry: str
    #: The message as it came, byte for byte.
    message: bytes
    reason: str
    #: When it died, in ISO 8601, UTC.
    time: str
    #: How often it was given to a worker.
    deliveries: str

    @property
    def id(self) -> str:
        """What `replay` and its kin know it by."""
        return f"{self.queue}:{self.entry}"

    @cached_property
    def envelope(self) -> dict[str, Any]:
        """The message, parsed as far as it can be; {} for one that is no JSON object."""
        try:
            parsed = json.loads(self.message)
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def task(self) -> str | None:
        """The name of its task, if the message says so."""
        name = self._header("task")
        if name is None and isinstance(self.body, dict):  # protocol 1
            name = self.body.get("task")
        return name if isinstance(name, str) else None

    @property
    def job_id(self) -> str | None:
        """The id of its job, if the message says so."""
        job_id, _ = validation.sender(self.envelope)
        if job_id is None and isinstance(self.body, dict):
            job_id, _ = validation.sender({"headers": self.body})
        return job_id

    @cached_property
    def body(self) -> Any:
        """The body, decoded if it is JSON; else its bytes, or its text. Nothing else is trusted."""
        properties = self.envelope.get("properties")
        encoding = properties.get("body_encoding") if isinstance(properties, dict) else None
        body: Any = self.envelope.get("body")
        try:
            if encoding == "base64":
                body = b64decode(body, validate=True)
            if compression := self._header("compression"):
                body = decompress(body, compression, validation.MAX_BYTES)
            kind = self.envelope["content-type"]
            return serialization.loads(body, kind, "utf-8", accept={"application/json"})
        except Exception:  # noqa: BLE001 - it is a dead letter: anything may be wrong with it
            return body

    def _header(self, name: str) -> Any:
        headers = self.envelope.get("headers")
        return headers.get(name) if isinstance(headers, dict) else None


def queues(redis: Any) -> list[str]:
    """Return the names of all queues that have dead letters."""
    found = redis.scan_iter(match=f"*{_SUFFIX}", count=1000, _type="stream")
    return sorted(_text(key).removesuffix(_SUFFIX) for key in found)


def letters(redis: Any, queue: str | None = None) -> Iterator[Letter]:
    """Yield the dead letters of a queue, or of all queues, the oldest of each first."""
    for name in [queue] if queue is not None else queues(redis):
        key, after = keys.dead(name), "-"
        # What dies meanwhile is for the next time: a letter that was replayed may be back at once.
        for newest, _ in redis.xrevrange(key, count=1):
            while page := redis.xrange(key, min=after, max=newest, count=BATCH):
                for entry, fields in page:
                    yield _letter(name, entry, fields)
                after = f"({_text(page[-1][0])}"


def show(redis: Any, letter_id: str) -> Letter:
    """Return the dead letter of an id; raises UnknownLetter, or ValueError for what is no id."""
    queue, entry = split(letter_id)
    for found, fields in redis.xrange(keys.dead(queue), min=entry, max=entry):
        return _letter(queue, found, fields)
    raise UnknownLetter(f"there is no dead letter {letter_id}")


def replay(
    redis: Any, letter: Letter, results: Any = None, steps: Sequence[int] = PRIORITY_STEPS
) -> None:
    """Put a letter's message back into its queue, under the same id, as if it had just been sent.

    With the result backend of an app, the failure that its caller got is forgotten, so that the new
    result can be waited for. All of it happens at once where the backend is in the same
    Redis. Raises NotReplayable or UnknownLetter.
    """
    try:
        message = validation.check(letter.message)
    except Malformed as error:
        raise NotReplayable(f"{letter.id} cannot be replayed: {error}") from None
    stream, result, failure = keys.stream(letter.queue, keys.priority_step(message, steps)), "", b""
    if _is_in(redis, results):
        result, failure = _stored_failure(results, letter.job_id)
    elif results:
        show(redis, letter.id)
        _forget_failure(results, letter.job_id)
    names = [keys.dead(letter.queue), stream, result or stream]
    if not scripts.REPLAY(redis, names, letter.entry, letter.message, failure):
        raise UnknownLetter(f"there is no dead letter {letter.id} any more")


def drop(redis: Any, letter: Letter) -> None:
    """Remove a letter for good; raises UnknownLetter if it is not there any more."""
    if not redis.xdel(keys.dead(letter.queue), letter.entry):
        raise UnknownLetter(f"there is no dead letter {letter.id} any more")


def split(letter_id: str) -> tuple[str, str]:
    """Return the queue and the entry that a letter's id names; ValueError for what is no id."""
    found = _ID.fullmatch(letter_id)
    if not found:
        raise ValueError(f"{letter_id!r} is no id of a dead letter, as add:1700000000000-0 is")
    return found["queue"], found["entry"]


def _letter(queue: str, entry: Any, fields: dict[bytes, bytes]) -> Letter:
    return Letter(
        queue,
        _text(entry),
        fields.get(b"message", b""),
        *(_text(fields.get(name, b"")) for name in (b"reason", b"time", b"deliveries")),
    )


def _is_in(redis: Any, results: Any) -> bool:
    """Tell whether an app's results are kept in this Redis, too."""
    store = getattr(results, "client", None)
    if not isinstance(store, Redis):
        return False
    here, there = (client.connection_pool.connection_kwargs for client in (redis, store))
    return all(here.get(name) == there.get(name) for name in ("host", "port", "path", "db"))


def _stored_failure(results: Any, job_id: str | None) -> tuple[str, bytes]:
    """Return the key of a job's result, and what is stored there if that is a failure."""
    if job_id is None:
        return "", b""
    key = _text(results.get_key_for_task(job_id))
    stored: bytes = results.client.get(key) or b""
    return key, stored if stored and _state(results, stored) == FAILURE else b""


def _state(results: Any, stored: bytes) -> Any:
    """Return the state that is stored of a job, None for what is no result."""
    try:
        known = results.decode(stored)
    except Exception:  # noqa: BLE001 - anybody may have stored it
        return None
    return known.get("status") if isinstance(known, dict) else None


def _forget_failure(results: Any, job_id: str | None) -> None:
    """Forget a job's failure before it runs again: after that, it might be the new run's."""
    with suppress(NotImplementedError, Unreadable):  # results are stored nowhere; it is none
        if job_id and results.get_state(job_id) == FAILURE:
            results.forget(job_id)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
