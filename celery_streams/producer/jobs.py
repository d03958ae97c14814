"""What differs between the messages of plain jobs: arguments, ids, and a place in a group."""

from collections.abc import Mapping
from os import urandom
from types import NoneType
from typing import Any, NamedTuple

from celery.canvas import Signature
from celery.utils.saferepr import saferepr
from kombu.utils.json import dumps

from celery_streams import fastjson
from celery_streams.transport.validation import MAX_NAME

#: Options that identify the job, its caller and its group, and their types.
_IDS = ("task_id", "root_id", "parent_id", "group_id", "reply_to")
_TEXT, _INDEX = frozenset({str, NoneType}), frozenset({int, NoneType})
_NUMBERS = frozenset({int, float, bool, NoneType})


class Job(NamedTuple):
    """The per-job fields of a message, as JSON."""

    id: bytes
    args: bytes
    kwargs: bytes
    args_repr: bytes
    kwargs_repr: bytes
    reply_to: bytes
    root_id: bytes
    parent_id: bytes = b"null"
    group: bytes = b"null"
    group_index: bytes = b"null"


class Jobs:
    """Makes the plain jobs of an app; their arguments have at most `max_json` bytes."""

    def __init__(self, app: Any, max_json: int) -> None:
        self._app = app
        self._max_json = max_json
        self._repr_size = app.amqp.argsrepr_maxsize
        self._max_levels = app.conf.task_repr_maxlevels

    def make(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Job | None:
        """Return the fields of a job's message; None if it is not plain."""
        if not isinstance(args, list | tuple | NoneType) or not isinstance(kwargs, dict | NoneType):
            return None
        args = tuple(args or ())
        text = fastjson.encode(args)
        named = fastjson.encode(_without_signature(kwargs)) if kwargs else b"{}"
        if text is None or named is None or len(text) + len(named) > self._max_json:
            return None
        ids = [options.get(name) for name in _IDS]
        index = options.get("group_index")
        if not _TEXT.issuperset(map(type, ids)) or type(index) not in _INDEX:
            return None
        for each in ids:  # a loop, for speed
            if each is not None and not (0 < len(each) <= MAX_NAME and each.isascii()):
                return None  # Celery's way checks it
        job_id, root_id, parent_id, group, reply_to = map(_text, ids)
        return Job(
            id=job_id,
            args=text,
            kwargs=named,
            args_repr=_text(options.get("argsrepr")) if "argsrepr" in options else self._repr(args),
            kwargs_repr=self._repr(kwargs) if kwargs else b'"{}"',
            reply_to=reply_to if options.get("reply_to") else _text(self._app.thread_oid),
            root_id=root_id if options.get("root_id") else job_id,
            parent_id=parent_id,
            group=group,
            group_index=b"null" if index is None else b"%d" % index,
        )

    def _repr(self, values: Any) -> bytes:
        """Return the JSON of the text by which Celery shows arguments."""
        return _text(arguments_repr(values, self._repr_size, self._max_levels))


def new_id() -> str:
    """Return a random UUID of version 4, like Celery's ids; faster than `uuid4`."""
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def arguments_repr(values: Any, limit: int, max_levels: int) -> str:
    """Return arguments, a tuple or a dict, as Celery shows them in `limit` characters."""
    if type(values) is tuple and _NUMBERS.issuperset(map(type, values)):
        text = repr(values)
        if len(text) < limit:
            return text
    # `saferepr` walks through the whole of a list, whatever it shows.
    if isinstance(values, dict):
        values = {key: _beginning(each, limit) for key, each in values.items()}
    else:
        values = tuple(_beginning(each, limit) for each in values)
    return saferepr(values, limit, maxlevels=max_levels)


def _beginning(value: Any, limit: int) -> Any:
    """Return the items of a list that can appear in `limit` characters, three for each."""
    return value[: limit // 3 + 2] if type(value) is list else value


def _without_signature(kwargs: dict[str, Any]) -> dict[str, Any]:
    task = kwargs.get("task")
    return {**kwargs, "task": dict(task)} if type(task) is Signature else kwargs


def _text(value: Any) -> bytes:
    """Return the JSON of a text or None."""
    if value is None:
        return b"null"
    return fastjson.encode(value) or dumps(value).encode()
