"""Dead letters: messages that no worker can process, kept with the reason for an operator.

Each queue has a stream of them. A letter's id is the queue's name and the entry's id, such as
`add:1700000000000-0`.
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
from celery_streams.errors import ClusterError, Malformed, Unreadable
from celery_streams.protocol import text
from celery_streams.transport import keys, validation

#: Kombu's default for the transport option `priority_steps`.
PRIORITY_STEPS = (0, 3, 6, 9)
#: Letters read by one command; each contains a whole message.
BATCH_SIZE = 100

_ID = re.compile(r"(?P<queue>.+):(?P<entry>\d{1,20}-\d{1,20})", re.DOTALL)
_SUFFIX = keys.dead("")


class UnknownLetter(ClusterError):
    """No dead letter has this id; it may have been replayed or dropped."""


class NotReplayable(ClusterError):
    """A dead letter's message is malformed, so that no worker could ever take it."""


@dataclass(frozen=True)
class Letter:
    """A dead letter."""

    queue: str
    #: The id of its entry in the stream.
    entry: str
    #: The message as received, byte for byte.
    message: bytes
    reason: str
    #: When it was dead-lettered, in ISO 8601, UTC.
    time: str
    #: The number of its deliveries to workers.
    deliveries: str

    @property
    def id(self) -> str:
        """The id that commands take: `<queue>:<entry>`."""
        return f"{self.queue}:{self.entry}"

    @cached_property
    def envelope(self) -> dict[str, Any]:
        """The parsed message; {} if it is not a JSON object."""
        try:
            parsed = json.loads(self.message)
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def task(self) -> str | None:
        """The name of its task; None if the message does not contain one."""
        name = self._header("task")
        if name is None and isinstance(self.body, dict):  # protocol 1
            name = self.body.get("task")
        return name if isinstance(name, str) else None

    @property
    def job_id(self) -> str | None:
        """The id of its job; None if the message does not contain one."""
        job_id, _ = validation.sender(self.envelope)
        if job_id is None and isinstance(self.body, dict):
            job_id, _ = validation.sender({"headers": self.body})
        return job_id

    @cached_property
    def body(self) -> Any:
        """The body, decoded if it is JSON, otherwise raw: no other content type is trusted."""
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
        except Exception:  # noqa: BLE001 - a dead letter may be malformed in any way
            return body

    def _header(self, name: str) -> Any:
        headers = self.envelope.get("headers")
        return headers.get(name) if isinstance(headers, dict) else None


def queues(redis: Any) -> list[str]:
    """Return the names of all queues that have dead letters."""
    found = redis.scan_iter(match=f"*{_SUFFIX}", count=1000, _type="stream")
    return sorted(text(key).removesuffix(_SUFFIX) for key in found)


def letters(redis: Any, queue: str | None = None) -> Iterator[Letter]:
    """Yield the dead letters of a queue, or of all queues, the oldest of each first."""
    for name in [queue] if queue is not None else queues(redis):
        key, after = keys.dead(name), "-"
        # Stop at the letter that is newest now: a replayed one may be dead-lettered again at once.
        for newest, _ in redis.xrevrange(key, count=1):
            while page := redis.xrange(key, min=after, max=newest, count=BATCH_SIZE):
                for entry, fields in page:
                    yield _letter(name, entry, fields)
                after = f"({text(page[-1][0])}"


def show(redis: Any, letter_id: str) -> Letter:
    """Return the dead letter with an id; raises UnknownLetter, or ValueError for a malformed id."""
    queue, entry = split(letter_id)
    for found, fields in redis.xrange(keys.dead(queue), min=entry, max=entry):
        return _letter(queue, found, fields)
    raise UnknownLetter(f"there is no dead letter {letter_id}")


def replay(
    redis: Any, letter: Letter, results: Any = None, steps: Sequence[int] = PRIORITY_STEPS
) -> None:
    """Publish a letter's message again, under its job's id, with no deliveries counted.

    If `results` is an app's result backend, the job's stored failure is removed, so that callers
    can wait for the new result; atomically if the backend uses the same Redis. Raises
    NotReplayable or UnknownLetter.
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
    """Remove a letter permanently; raises UnknownLetter if it does not exist any more."""
    if not redis.xdel(keys.dead(letter.queue), letter.entry):
        raise UnknownLetter(f"there is no dead letter {letter.id} any more")


def split(letter_id: str) -> tuple[str, str]:
    """Return the queue and the entry id of a letter's id; raises ValueError if it is malformed."""
    found = _ID.fullmatch(letter_id)
    if not found:
        raise ValueError(f"{letter_id!r} is not a dead letter's id, such as add:1700000000000-0")
    return found["queue"], found["entry"]


def _letter(queue: str, entry: Any, fields: dict[bytes, bytes]) -> Letter:
    return Letter(
        queue,
        text(entry),
        fields.get(b"message", b""),
        *(text(fields.get(name, b"")) for name in (b"reason", b"time", b"deliveries")),
    )


def _is_in(redis: Any, results: Any) -> bool:
    """Return True if an app's result backend uses the same Redis database as `redis`."""
    store = getattr(results, "client", None)
    if not isinstance(store, Redis):
        return False
    here, there = (client.connection_pool.connection_kwargs for client in (redis, store))
    return all(here.get(name) == there.get(name) for name in ("host", "port", "path", "db"))


def _stored_failure(results: Any, job_id: str | None) -> tuple[str, bytes]:
    """Return the key of a job's result, and the stored payload if it is a failure."""
    if job_id is None:
        return "", b""
    key = text(results.get_key_for_task(job_id))
    stored: bytes = results.client.get(key) or b""
    return key, stored if stored and _state(results, stored) == FAILURE else b""


def _state(results: Any, stored: bytes) -> Any:
    """Return the state in a stored result; None if it is not a result."""
    try:
        meta = results.decode(stored)
    except Exception:  # noqa: BLE001 - another program may have stored it
        return None
    return meta.get("status") if isinstance(meta, dict) else None


def _forget_failure(results: Any, job_id: str | None) -> None:
    """Remove a job's failure before it is published again: later it might be the new run's."""
    with suppress(NotImplementedError, Unreadable):  # results are disabled; not a result
        if job_id and results.get_state(job_id) == FAILURE:
            results.forget(job_id)
