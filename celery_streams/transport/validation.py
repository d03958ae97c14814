"""Validation of messages before a worker sees them: kombu's envelope around Celery's task.

Celery and kombu trust the content of a message. An invalid one crashes the worker, fails much later
in the event loop, or leaves the caller waiting; it is rejected here instead.
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

from celery_streams.errors import Malformed

#: Maximum nesting of lists and mappings. Pickle, which carries a job to its pool process, fails
#: before 500 levels, with half of the job already sent.
MAX_DEPTH = 200
#: Maximum length of a job id, task name, group id and so on, in characters: they appear in keys,
#: logs, events and metrics.
MAX_NAME = 1024
#: Maximum length of argsrepr and kwargsrepr, in characters; Celery itself sends at most 1024.
MAX_REPR = 16 * 1024
#: Maximum time limit, in seconds (31 years); timers and thread waits overflow not far beyond.
MAX_SECONDS = 1_000_000_000
#: Maximum number of retries: Celery computes 2**retries for its backoff.
MAX_RETRIES = 1_000_000
#: Maximum length of an ISO 8601 time, in characters.
MAX_ISO_LENGTH = 64
#: Maximum absolute value of numbers that are only stored, such as a priority or a group index.
MAX_NUMBER = 2**31
#: Default maximum size of a message, in bytes, as in RabbitMQ. Parsing takes at least ten times as
#: much memory.
MAX_BYTES = 16 * 1024 * 1024
#: Maximum length of a reason, in characters: a parser's error may quote the whole message.
MAX_REASON = 250

_decode = json.JSONDecoder().decode
# Kombu marks values that JSON has no type for: times, UUIDs, bytes.
_decode_marked = json.JSONDecoder(object_hook=object_hook).decode
_MARK = b"__type__"

_ID_PATTERN = re.compile(rb'"id"\s*:\s*"([^"\\]+)"')
_REPLY_TO_PATTERN = re.compile(rb'"reply_to"\s*:\s*"([^"\\]+)"')


def check(raw: bytes, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the envelope of a message in Redis, in the form that kombu's channel expects.

    Its headers are always a mapping, possibly empty. Raise Malformed, and no other error, for a
    message that a worker cannot process. A message that is not a task may be any valid envelope.
    """
    if len(raw) > max_bytes:
        raise _unparsed(too_large(len(raw), max_bytes), raw)
    try:
        envelope = (_decode_marked if _MARK in raw else _decode)(raw.decode())
    except RecursionError:
        raise _unparsed("the message is nested too deeply", raw) from None
    except Exception as error:  # noqa: BLE001 - a marked value's decoder may raise any error
        raise _unparsed(f"the message is not JSON: {error}", raw) from None
    check_parsed(envelope)
    # Brackets in the body are not counted: it is base64.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and is_deep(envelope):
        raise Malformed("the message is nested too deeply", *sender(envelope))
    checked: dict[str, Any] = envelope
    return checked


def too_large(size: int, limit: int) -> str:
    """Return the error text for a message of `size` bytes."""
    return f"the message has {size} bytes, more than {limit} (max_message_bytes)"


def check_parsed(envelope: Any) -> None:
    """Raise Malformed if a parsed message is not a valid envelope, or its task is not valid."""
    if type(envelope) is not dict:
        raise Malformed(f"the message is not an envelope but {_kind(envelope)}")
    try:
        _check_envelope(envelope)
    except Malformed as error:
        raise Malformed(error.reason, *sender(envelope)) from None
    except Exception as error:  # noqa: BLE001 - a case that no check covers
        reason = f"the message cannot be checked: {type(error).__name__}: {error}"
        raise Malformed(reason[:MAX_REASON], *sender(envelope)) from None


def _check_envelope(envelope: dict[str, Any]) -> None:
    properties = envelope.get("properties")
    if type(properties) is not dict:
        raise Malformed(f"the message's properties are not a mapping but {_kind(properties)}")
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
        raise Malformed(f"the message's headers are not a mapping but {_kind(headers)}")
    _check_body(envelope.get("body"), properties.get("body_encoding"))
    if "task" in headers:
        if type(body := envelope.get("body")) is not str:
            raise Malformed(f"the message's body is not a string but {_kind(body)}")
        check_task(headers)


def _check_fields(
    fields: Mapping[str, Any], checks: "tuple[tuple[str, _Check, str], ...]", kind: str
) -> None:
    for name, is_valid, expected in checks:
        value = fields.get(name)
        if value is not None and not is_valid(value):
            raise Malformed(f"the message's {kind} {name!r} is not {expected}: {_short(value)}")


def _check_body(body: Any, encoding: Any) -> None:
    if encoding == "base64":
        if type(body) is not str and body:
            raise Malformed(f"the message's body is not a string but {_kind(body)}")
        try:
            a2b_base64(body or "")
        except ValueError as error:
            raise Malformed(f"the message's body is not base64: {error}") from None
    elif encoding and (type(encoding) is not str or encoding.lower() != "utf-8"):
        raise Malformed(f"the message's body_encoding is unknown: {_short(encoding)}")


def check_task(headers: dict[str, Any]) -> None:
    """Check the headers of a protocol 2 task message, or the body of a protocol 1 message.

    Raise Malformed for values that break Celery; it checks or ignores the others itself.
    """
    for name in ("id", "task"):
        value = headers.get(name)
        if type(value) is not str or not value:
            raise Malformed(f"the task's {name} is not a name: {_short(value)}")
        if len(value) > MAX_NAME:
            raise Malformed(f"the task's {name} has {len(value)} characters")
        if not value.isascii() and not _is_text(value):
            raise Malformed(f"the task's {name} cannot be encoded in UTF-8: {_short(value)}")
    for name, is_valid, expected in _TASK_HEADERS:
        value = headers.get(name)
        if value is not None and not is_valid(value):
            raise Malformed(f"the task's header {name!r} is not {expected}: {_short(value)}")
    for name in _RESERVED_HEADERS:
        if name in headers:
            raise Malformed(f"the task's header {name!r} is reserved by Celery")
    retries = headers.get("retries", 0)
    if type(retries) is not int or not 0 <= retries <= MAX_RETRIES:
        raise Malformed(
            f"the task's header 'retries' is not a whole number up to {MAX_RETRIES}: "
            f"{_short(retries)}"
        )


def check_call(payload: Any, headers: dict[str, Any]) -> None:
    """Raise Malformed if a task's decoded body would fail in its pool process.

    The body is `[args, kwargs, embed]` in protocol 2, and a mapping with these fields in protocol 1
    and in Celery's hybrid of the two.
    """
    if isinstance(payload, dict) and ("args" in payload or "task" not in headers):
        check_task({**payload, **headers})
        call = payload.get("args", ()), payload.get("kwargs", {}), payload
    else:
        call = payload
    if not isinstance(call, list | tuple) or len(call) != 3:  # noqa: PLR2004 - by the protocol
        raise Malformed("the task's body is not [args, kwargs, embed]")
    args, kwargs, embed = call
    if not isinstance(args, list | tuple):
        raise Malformed(f"the task's args are not a list but {_kind(args)}")
    if not isinstance(kwargs, dict):
        raise Malformed(f"the task's kwargs are not a mapping but {_kind(kwargs)}")
    if embed is not None and not isinstance(embed, dict):
        raise Malformed(f"the task's embedded signatures are not a mapping but {_kind(embed)}")
    for name, is_valid, expected in _EMBEDDED:
        value = embed.get(name) if embed else None
        if value is not None and not is_valid(value):
            raise Malformed(f"the task's {name!r} is not {expected}: {_short(value)}")


def is_deep(value: Any) -> bool:
    """Return True if lists and mappings are nested deeper than MAX_DEPTH."""
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
    """Return the job's id and its caller's channel, each None if the envelope does not name it."""
    headers, properties = envelope.get("headers"), envelope.get("properties")
    headers = headers if isinstance(headers, dict) else {}
    properties = properties if isinstance(properties, dict) else {}
    # Celery sends the job's id as the correlation id, too.
    return (
        _name(headers.get("id")) or _name(properties.get("correlation_id")),
        _name(properties.get("reply_to")),
    )


def _unparsed(reason: str, raw: bytes) -> Malformed:
    """Return the error for bytes that cannot be parsed; a regex salvages job id and reply_to."""
    found = [pattern.search(raw) for pattern in (_ID_PATTERN, _REPLY_TO_PATTERN)]
    names = [_name(match[1].decode(errors="replace")) if match else None for match in found]
    return Malformed(" ".join(reason.split())[:MAX_REASON], *names)


def _name(value: Any) -> str | None:
    if type(value) is UUID:  # as stock Celery may send it
        value = str(value)
    is_name = type(value) is str and 0 < len(value) <= MAX_NAME and _is_text(value)
    return value if is_name else None


def _is_text(value: str) -> bool:
    """Return True if UTF-8 can encode `value`; JSON can hold lone surrogates, a key cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_time(value: Any) -> bool:
    try:
        time = maybe_iso8601(value) if type(value) is str and len(value) <= MAX_ISO_LENGTH else None
        if isinstance(value, datetime):  # AMQP has a type for times
            time = value
    except (ValueError, OverflowError):
        return False
    # In the first and the last year, converting the time zone may overflow.
    return time is not None and MINYEAR < time.year < MAXYEAR


def _is_limits(value: Any) -> bool:
    if not value:  # Celery treats it as no limit
        return True
    return (
        isinstance(value, list | tuple)
        and len(value) == 2  # noqa: PLR2004 - the hard and the soft limit
        and all(
            limit is None or (type(limit) in _NUMBERS and 0 <= limit <= MAX_SECONDS)
            for limit in value
        )
    )


_NUMBERS = (int, float)


def is_name(value: Any) -> bool:
    """Return True for a string of at most MAX_NAME characters that UTF-8 can encode."""
    return type(value) is str and len(value) <= MAX_NAME and (value.isascii() or _is_text(value))


def _is_repr(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_REPR


def _is_number(value: Any) -> bool:
    return type(value) in _NUMBERS and -MAX_NUMBER <= value <= MAX_NUMBER


def _is_priority(value: Any) -> bool:
    # Kombu replaces a string by the default priority.
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


_Check = Callable[[Any], bool]

#: Attributes of Celery's Context, which a header of the same name would overwrite.
_RESERVED_HEADERS = ("_children", "_protected")

#: Optional headers that Celery's worker process uses unchecked: name, check, expected value.
_TASK_HEADERS: tuple[tuple[str, _Check, str], ...] = (
    ("eta", _is_time, "an ISO 8601 time"),
    ("expires", _is_time, "an ISO 8601 time"),
    ("timelimit", _is_limits, "a hard and a soft limit in seconds"),
    ("group", is_name, "an id"),
    ("root_id", is_name, "an id"),
    ("parent_id", is_name, "an id"),
    ("group_index", _is_whole_number, "a whole number"),
    ("replaced_task_nesting", _is_whole_number, "a whole number"),
    ("shadow", is_name, "a name"),
    ("origin", is_name, "a name"),
    ("argsrepr", _is_repr, f"a string of at most {MAX_REPR} characters"),
    ("kwargsrepr", _is_repr, f"a string of at most {MAX_REPR} characters"),
    ("stamped_headers", _is_names, "a list of names"),
    ("stamps", _is_mapping, "a mapping"),
)
#: Optional fields of a message that kombu and Celery use unchecked.
_PROPERTIES: tuple[tuple[str, _Check, str], ...] = (
    ("reply_to", is_name, "a name"),
    ("correlation_id", is_name, "an id"),
    ("priority", _is_priority, "a number"),
    ("delivery_mode", _is_whole_number, "a number"),
    ("expiration", _is_name_or_number, "a time"),
)
_DELIVERY_INFO: tuple[tuple[str, _Check, str], ...] = (
    ("exchange", is_name, "a name"),
    ("routing_key", is_name, "a name"),
    ("priority", _is_priority, "a number"),
)
_CONTENT: tuple[tuple[str, _Check, str], ...] = (
    ("content-type", is_name, "a name"),
    ("content-encoding", is_name, "a name"),
)
_EMBEDDED: tuple[tuple[str, _Check, str], ...] = (
    ("callbacks", _is_signatures, "a list of signatures"),
    ("errbacks", _is_signatures, "a list of signatures"),
    ("chain", _is_signatures, "a list of signatures"),
    ("chord", _is_signature, "a signature"),
)


def _kind(value: Any) -> str:
    """Return the name of a value's type in JSON, with its article."""
    return _KINDS.get(type(value), type(value).__name__)


_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _short(value: Any, limit: int = 80) -> str:
    """Return a value's ASCII representation, cut after `limit` characters."""
    text = ascii(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
