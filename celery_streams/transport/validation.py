"""What a message must be before a worker may see it: kombu's envelope, with Celery's task in it.

Celery and kombu take a message for what it says it is. What is not so ends the worker, or fails in
the event loop long after, or leaves the caller waiting: here it is found out first.
The protocol: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

import json
import re
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from datetime import MAXYEAR, MINYEAR, datetime
from typing import Any
from uuid import UUID

from celery.utils.time import maybe_iso8601
from kombu.utils.json import object_hook

from celery_streams.errors import Unreadable

#: Levels of lists and mappings, one in the other. Pickle, by which a job gets to its pool process,
#: gives up before five hundred, with the job half on its way.
MAX_DEPTH = 200
#: Characters of a name: of a job's id, a task's name, a group's id; they get into keys, log lines,
#: events and metrics.
MAX_NAME = 1024
#: Characters of what Celery shows of a job's arguments, in logs and events; it sends 1024 at most.
MAX_REPR = 16 * 1024
#: Seconds of a time limit: 31 years. Beyond some 10^9 the clocks of timers and threads overflow.
MAX_SECONDS = 1_000_000_000
#: Retries of a job: Celery takes 2 to the power of them.
MAX_RETRIES = 1_000_000
#: Characters of a time by ISO 8601.
MAX_TIME = 64
#: Numbers that only have to be kept: a priority, a place in a group.
MAX_NUMBER = 2**31
#: Bytes of a message, where no setting says otherwise: RabbitMQ's bound. Parsed, they take ten
#: times as much memory and more.
MAX_BYTES = 16 * 1024 * 1024
#: Characters of a reason that somebody else worded: it may quote all of the message.
MAX_REASON = 250

_plain = json.JSONDecoder().decode
# Kombu marks what JSON has no word for: times, UUIDs, bytes.
_marked = json.JSONDecoder(object_hook=object_hook).decode
_MARK = b"__type__"

_ID_IN_PIECES = re.compile(rb'"id"\s*:\s*"([^"\\]+)"')
_REPLY_TO_IN_PIECES = re.compile(rb'"reply_to"\s*:\s*"([^"\\]+)"')


class Malformed(Unreadable):
    """A message that would end a worker or block it, or leave the one who waits without answer.

    It knows whose message that is, as far as the message says so.
    """

    def __init__(self, reason: str, job_id: str | None = None, reply_to: str | None = None) -> None:
        super().__init__(reason)
        #: One sentence.
        self.reason = reason
        self.job_id = job_id
        #: What the caller's process listens to.
        self.reply_to = reply_to


def check(raw: bytes, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the envelope that a message in Redis is, as kombu's channel wants it.

    Its headers are a mapping, if only an empty one. Raises Malformed for what no worker can take,
    and nothing else. A message that is no task is any program's, and needs nothing but to be an
    envelope.
    """
    if len(raw) > max_bytes:
        raise _in_pieces(too_large(len(raw), max_bytes), raw)
    try:
        envelope = (_marked if _MARK in raw else _plain)(raw.decode())
    except RecursionError:
        raise _in_pieces("the message is nested too deeply", raw) from None
    except Exception as error:  # noqa: BLE001 - a marked value's decoder raises what it likes
        raise _in_pieces(f"the message is no JSON: {error}", raw) from None
    check_parsed(envelope)
    # Brackets in the body are none of these: it is encoded.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and is_deep(envelope):
        raise Malformed("the message is nested too deeply", *sender(envelope))
    checked: dict[str, Any] = envelope
    return checked


def too_large(size: int, most: int) -> str:
    """Return the error text for a message of `size` bytes."""
    return f"the message has {size} bytes, more than {most} (max_message_bytes)"


def check_parsed(envelope: Any) -> None:
    """Raise Malformed where a message that was parsed is no envelope, or its task none."""
    if type(envelope) is not dict:
        raise Malformed(f"the message is no envelope but a JSON {_kind(envelope)}")
    try:
        _check_envelope(envelope)
    except Malformed as error:
        raise Malformed(error.reason, *sender(envelope)) from None
    except Exception as error:  # noqa: BLE001 - whatever a check did not think of
        reason = f"the message cannot be checked: {type(error).__name__}: {error}"
        raise Malformed(reason[:MAX_REASON], *sender(envelope)) from None


def _check_envelope(envelope: dict[str, Any]) -> None:
    properties = envelope.get("properties")
    if type(properties) is not dict:
        raise Malformed(f"the message's properties are no mapping but {_kind(properties)}")
    tag, info = properties.get("delivery_tag"), properties.get("delivery_info")
    if tag is None or not _is_name_or_number(tag):
        raise Malformed("the message has no delivery_tag among its properties")
    if type(info) is not dict:
        raise Malformed("the message has no delivery_info among its properties")
    _check_fields(properties, _PROPERTIES, "property")
    _check_fields(info, _DELIVERY_INFO, "delivery_info")
    _check_fields(envelope, _CONTENT, "field")
    headers = envelope.setdefault("headers", {})
    if headers is None:
        headers = envelope["headers"] = {}
    if type(headers) is not dict:
        raise Malformed(f"the message's headers are no mapping but {_kind(headers)}")
    _check_body(envelope.get("body"), properties.get("body_encoding"))
    if "task" in headers:
        if type(envelope.get("body")) is not str:
            raise Malformed(f"the message's body is no text but {_kind(envelope.get('body'))}")
        check_task(headers)


def _check_fields(
    fields: Mapping[str, Any], checks: "tuple[tuple[str, _Judge, str], ...]", what: str
) -> None:
    for name, is_good, expected in checks:
        value = fields.get(name)
        if value is not None and not is_good(value):
            raise Malformed(f"the message's {what} {name!r} is not {expected}: {_short(value)}")


def _check_body(body: Any, encoding: Any) -> None:
    if encoding == "base64":
        if type(body) is not str and body:
            raise Malformed(f"the message's body is no text but {_kind(body)}")
        try:
            a2b_base64(body or "")
        except ValueError as error:
            raise Malformed(f"the message's body is no base64: {error}") from None
    elif encoding and (type(encoding) is not str or encoding.lower() != "utf-8"):
        raise Malformed(f"the message's body_encoding is unknown: {_short(encoding)}")


def check_task(headers: dict[str, Any]) -> None:
    """Check the headers of a task's message of protocol 2, or the body of one of protocol 1.

    Raises Malformed for what Celery cannot take: the rest it judges itself, or ignores.
    """
    for name in ("id", "task"):
        value = headers.get(name)
        if type(value) is not str or not value:
            raise Malformed(f"the task's {name} is no name: {_short(value)}")
        if len(value) > MAX_NAME:
            raise Malformed(f"the task's {name} has {len(value)} characters")
        if not value.isascii() and not _is_text(value):
            raise Malformed(f"the task's {name} is no text that UTF-8 has: {_short(value)}")
    for name, is_good, what in _TASK_HEADERS:
        value = headers.get(name)
        if value is not None and not is_good(value):
            raise Malformed(f"the task's header {name!r} is not {what}: {_short(value)}")
    for name in _PRIVATE:
        if name in headers:
            raise Malformed(f"the task has a header {name!r}, which is Celery's own")
    retries = headers.get("retries", 0)
    if type(retries) is not int or not 0 <= retries <= MAX_RETRIES:
        raise Malformed(
            f"the task's header 'retries' is not a whole number up to {MAX_RETRIES}: "
            f"{_short(retries)}"
        )


def check_call(payload: Any, headers: dict[str, Any]) -> None:
    """Check a task's body, decoded, for what its pool process could not take.

    `[args, kwargs, embed]` in protocol 2; in protocol 1, and in what stands between the two, a
    mapping that names them. Raises Malformed.
    """
    if isinstance(payload, dict) and ("args" in payload or "task" not in headers):
        check_task({**payload, **headers})
        call = payload.get("args", ()), payload.get("kwargs", {}), payload
    else:
        call = payload
    if not isinstance(call, list | tuple) or len(call) != 3:  # noqa: PLR2004 - the protocol's
        raise Malformed("the task's body is not [args, kwargs, embed]")
    args, kwargs, embed = call
    if not isinstance(args, list | tuple):
        raise Malformed(f"the task's args are no list but {_kind(args)}")
    if not isinstance(kwargs, dict):
        raise Malformed(f"the task's kwargs are no mapping but {_kind(kwargs)}")
    if embed is not None and not isinstance(embed, dict):
        raise Malformed(f"the task's embedded signatures are no mapping but {_kind(embed)}")
    for name, is_good, what in _EMBEDDED:
        value = embed.get(name) if embed else None
        if value is not None and not is_good(value):
            raise Malformed(f"the task's {name!r} is not {what}: {_short(value)}")


def is_deep(value: Any) -> bool:
    """Tell whether lists and mappings are nested in each other beyond MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list | tuple)
        ]
        if not level:
            return False
    return True


def sender(envelope: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the job's id and what its caller listens to, each None where it is not said."""
    headers, properties = envelope.get("headers"), envelope.get("properties")
    headers = headers if isinstance(headers, dict) else {}
    properties = properties if isinstance(properties, dict) else {}
    # Celery says it twice: the correlation id is the job's.
    return (
        _name(headers.get("id")) or _name(properties.get("correlation_id")),
        _name(properties.get("reply_to")),
    )


def _in_pieces(reason: str, raw: bytes) -> Malformed:
    """Return the error of a message that is no JSON, with what can be told of its sender."""
    found = [pattern.search(raw) for pattern in (_ID_IN_PIECES, _REPLY_TO_IN_PIECES)]
    names = [_name(match[1].decode(errors="replace")) if match else None for match in found]
    return Malformed(" ".join(reason.split())[:MAX_REASON], *names)


def _name(value: Any) -> str | None:
    if type(value) is UUID:  # as a stock program may send it
        value = str(value)
    is_name = type(value) is str and 0 < len(value) <= MAX_NAME and _is_text(value)
    return value if is_name else None


def _is_text(value: str) -> bool:
    """Tell whether UTF-8 has it: JSON can name half a character, no key in Redis can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_time(value: Any) -> bool:
    try:
        time = maybe_iso8601(value) if type(value) is str and len(value) <= MAX_TIME else None
        if isinstance(value, datetime):  # RabbitMQ has times of its own
            time = value
    except (ValueError, OverflowError):
        return False
    # In the first year and in the last, another time zone is out of the calendar.
    return time is not None and MINYEAR < time.year < MAXYEAR


def _is_limits(value: Any) -> bool:
    if not value:  # Celery takes it for none
        return True
    return (
        isinstance(value, list | tuple)
        and len(value) == 2  # noqa: PLR2004 - the hard limit, the soft one
        and all(
            limit is None or (type(limit) in _NUMBERS and 0 <= limit <= MAX_SECONDS)
            for limit in value
        )
    )


_NUMBERS = (int, float)


def is_name(value: Any) -> bool:
    """Return True if a value is text of up to MAX_NAME characters that UTF-8 has."""
    return type(value) is str and len(value) <= MAX_NAME and (value.isascii() or _is_text(value))


def _is_repr(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_REPR


def _is_number(value: Any) -> bool:
    return type(value) in _NUMBERS and -MAX_NUMBER <= value <= MAX_NUMBER


def _is_priority(value: Any) -> bool:
    # Kombu takes text for the default.
    return is_name(value) or _is_number(value)


def _is_whole_number(value: Any) -> bool:
    return type(value) is int and -MAX_NUMBER <= value <= MAX_NUMBER


def _is_name_or_number(value: Any) -> bool:
    return is_name(value) or _is_whole_number(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(is_name, value))


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("task")) is str


def _is_signatures(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_signature, value))


_Judge = Callable[[Any], bool]

#: Attributes of Celery's context of a job, which takes all headers as they are.
_PRIVATE = ("_children", "_protected")

#: Those that Celery's worker process uses without a look, and what they must be, if they are there.
_TASK_HEADERS: tuple[tuple[str, _Judge, str], ...] = (
    ("eta", _is_time, "a time by ISO 8601"),
    ("expires", _is_time, "a time by ISO 8601"),
    ("timelimit", _is_limits, "a hard and a soft limit in seconds"),
    ("group", is_name, "an id"),
    ("root_id", is_name, "an id"),
    ("parent_id", is_name, "an id"),
    ("group_index", _is_whole_number, "a place in a group"),
    ("replaced_task_nesting", _is_whole_number, "a whole number"),
    ("shadow", is_name, "a name"),
    ("origin", is_name, "a name"),
    ("argsrepr", _is_repr, "a short text"),
    ("kwargsrepr", _is_repr, "a short text"),
    ("stamped_headers", _is_names, "a list of names"),
    ("stamps", _is_mapping, "a mapping"),
)
#: Those of a message that kombu and Celery use without a look.
_PROPERTIES: tuple[tuple[str, _Judge, str], ...] = (
    ("reply_to", is_name, "a name"),
    ("correlation_id", is_name, "an id"),
    ("priority", _is_priority, "a number"),
    ("delivery_mode", _is_whole_number, "a number"),
    ("expiration", _is_name_or_number, "a time"),
)
_DELIVERY_INFO: tuple[tuple[str, _Judge, str], ...] = (
    ("exchange", is_name, "a name"),
    ("routing_key", is_name, "a name"),
    ("priority", _is_priority, "a number"),
)
_CONTENT: tuple[tuple[str, _Judge, str], ...] = (
    ("content-type", is_name, "a name"),
    ("content-encoding", is_name, "a name"),
)
_EMBEDDED: tuple[tuple[str, _Judge, str], ...] = (
    ("callbacks", _is_signatures, "a list of signatures"),
    ("errbacks", _is_signatures, "a list of signatures"),
    ("chain", _is_signatures, "a list of signatures"),
    ("chord", _is_signature, "a signature"),
)


def _kind(value: Any) -> str:
    """Return what JSON calls a value of this type."""
    return _KINDS.get(type(value), type(value).__name__)


_KINDS = {
    dict: "object",
    list: "list",
    str: "text",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def _short(value: Any, most: int = 80) -> str:
    """Return a value as it is written, but not all of it; ASCII alone."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[:most]}…"
