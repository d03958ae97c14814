"""Malformed messages of every kind, from a seed."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import redis

#: The task of the messages.
TASK = "add.tasks.add"
#: Limit for the length of a random message, in bytes.
MAX_BYTES = 400


class Malformed(NamedTuple):
    """A malformed message, and its job's id if that can be read."""

    kind: str
    payload: bytes
    job_id: str | None


def messages(chance: random.Random, count: int) -> Iterator[Malformed]:
    """Yield `count` messages, of each kind in turn."""
    kinds = [*_KINDS.items()]
    for i in range(count):
        kind, make = kinds[i % len(kinds)]
        yield make(kind, chance)


def put(server: "redis.Redis", queue: str, payload: bytes, *, in_stream: bool) -> None:
    """Put a message into a queue: its stream, or the list that stock Celery writes to."""
    if in_stream:
        server.xadd(f"{queue}:stream:3", {"message": payload})
    else:
        server.lpush(queue, payload)


# How each is made ------------------------------------------------------------------

_Make = Callable[[str, random.Random], Malformed]


def _whole(payload: bytes) -> _Make:
    return lambda kind, chance: Malformed(kind, payload, None)


def _random_bytes(kind: str, chance: random.Random) -> Malformed:
    return Malformed(kind, chance.randbytes(chance.randint(0, MAX_BYTES)), None)


def _cut_short(kind: str, chance: random.Random) -> Malformed:
    payload = json.dumps(_envelope(str(UUID(int=chance.getrandbits(128))))).encode()
    return Malformed(kind, payload[: chance.randrange(1, len(payload))], None)


def _envelope(job_id: str) -> dict[str, Any]:
    """Return kombu's message of `add(4, 6)`."""
    return {
        "body": _encoded([[4, 6], {}, _EMBEDDED]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": TASK,
            "id": job_id,
            "root_id": job_id,
            "parent_id": None,
            "group": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
        },
        "properties": {
            "correlation_id": job_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "add"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": job_id,
        },
    }


_EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def _encoded(body: Any) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def _changed(change: Callable[[dict[str, Any]], object], *, has_id: bool = True) -> _Make:
    """Return a function that makes a good message with one change."""

    def make(kind: str, chance: random.Random) -> Malformed:
        job_id = str(UUID(int=chance.getrandbits(128), version=4))
        envelope = _envelope(job_id)
        change(envelope)
        return Malformed(kind, json.dumps(envelope).encode(), job_id if has_id else None)

    return make


def _with(**fields: Any) -> _Make:
    return _changed(lambda message: message.update(fields))


def _with_headers(**headers: Any) -> _Make:
    return _changed(lambda message: message["headers"].update(headers))


def _with_body(body: Any) -> _Make:
    return _with(body=_encoded(body))


_KINDS: dict[str, _Make] = {
    "no JSON": _whole(b"this is no JSON"),
    "binary": _whole(b"\x80\x04\x95\x00\xff\xfe"),
    "empty": _whole(b""),
    "a JSON list": _whole(b"[1, 2, 3]"),
    "a JSON number": _whole(b"42"),
    "a JSON null": _whole(b"null"),
    "a JSON text": _whole(b'"text"'),
    "an empty object": _whole(b"{}"),
    "nested too deeply": _whole(b"[" * 100_000),
    "random bytes": _random_bytes,
    "cut short": _cut_short,
    "bad base64": _with(body="%%% no base64 %%%"),
    "no body": _changed(lambda message: message.pop("body")),
    "body a number": _with(body=7),
    "headers a list": _changed(
        lambda message: message.update(headers=["task", "id"]), has_id=False
    ),
    "no headers": _changed(lambda message: message.pop("headers"), has_id=False),
    "body no list of three": _with_body([[4, 6]]),
    "body a number in JSON": _with_body(7),
    "arguments a number": _with_body([7, {}, _EMBEDDED]),
    "keywords no dict": _with_body([[4, 6], ["x"], _EMBEDDED]),
    "embedded a list": _with_body([[4, 6], {}, [1]]),
    "undecodable body": _with(body=base64.b64encode(b"{no json").decode()),
    "pickle": _with(**{"content-type": "application/x-python-serialize"}),
    "unknown content type": _with(**{"content-type": "application/x-unknown"}),
    "unknown content encoding": _with(**{"content-encoding": "no-such-encoding"}),
    "time limit a text": _with_headers(timelimit="abc"),
    "time limit of texts": _with_headers(timelimit=["a", "b"]),
    "bad eta": _with_headers(eta="tomorrow"),
    "bad expires": _with_headers(expires="never"),
    "retries a text": _with_headers(retries="many"),
    "bogus compression": _with_headers(compression="no-such-compression"),
    "no id": _changed(lambda message: message["headers"].pop("id"), has_id=False),
    "id a number": _changed(lambda message: message["headers"].update(id=7), has_id=False),
    "no task": _changed(lambda message: message["headers"].pop("task")),
    "no properties": _changed(lambda message: message.pop("properties")),
    "properties a list": _with(properties=[]),
    "no delivery tag": _changed(lambda message: message["properties"].pop("delivery_tag")),
    "no delivery info": _changed(lambda message: message["properties"].pop("delivery_info")),
    "priority a text": _changed(lambda message: message["properties"].update(priority="high")),
    "unknown task": _with_headers(task="add.tasks.no_such_task"),
    "too many arguments": _with_body([[1, 2, 3, 4, 5], {}, _EMBEDDED]),
    "unknown keyword": _with_body([[4, 6], {"colour": "red"}, _EMBEDDED]),
}
