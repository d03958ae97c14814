"""A task's message, serialised once, with placeholders for the per-job fields.

Celery and kombu are slow to build a message, mostly because of options that are rarely given. Here
they build one message per task; each later job only fills in the placeholders.
"""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from operator import itemgetter
from os import urandom
from types import NoneType
from typing import Any, NamedTuple, Self
from uuid import uuid4

from celery.utils.saferepr import saferepr
from kombu.messaging import Producer
from kombu.utils.json import dumps

from celery_streams.transport.channel import Channel
from celery_streams.transport.publishing import TRANSIENT

#: Marks a placeholder; random, so that no other text in a message can contain it.
_TOKEN = uuid4().hex
#: Options of a job that its message carries in the headers.
_HEADER_OPTIONS = ("ignore_result", "time_limit", "soft_time_limit")
_NUMBERS = frozenset({int, float, bool, NoneType})
_BODY_START = "[[], {}, "


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


class Template:
    """A task's message with placeholders for the per-job fields, and its target stream."""

    def __init__(
        self, text: str, rest_of_body: str, max_bytes: int, key: str, max_length: int
    ) -> None:
        fields = (*Job._fields, "body", "tag")
        text, *rest = re.split(f'"{_placeholder("(.+?)")}"', text)
        names, texts = rest[::2], [text, *rest[1::2]]
        #: The message with a %b per placeholder, and a getter of the values in that order.
        self._text = "%b".join(each.replace("%", "%%") for each in texts).encode()
        self._in_order = itemgetter(*map(fields.index, names))
        self._rest_of_body = rest_of_body.encode()
        #: The limit on a message's bytes.
        self.max_bytes = max_bytes
        #: The stream, and its maximum length in messages.
        self.key, self.max_length = key, max_length

    @classmethod
    def of(cls, app: Any, channel: Channel, name: str, queue: Any, **options: Any) -> Self | None:
        """Declare `queue` and return the template of a task's messages to it.

        Return None if they are not plain JSON in a stream. `options` are those of `send_task`.
        """
        if not isinstance(channel, Channel) or app.conf.task_protocol != 2:  # noqa: PLR2004
            return None
        header_options = {each: options.pop(each, None) for each in _HEADER_OPTIONS}
        message = app.amqp.as_task_v2(
            *(_placeholder("id"), name, (), {}),
            group_id=_placeholder("group"),
            group_index=_placeholder("group_index"),
            root_id=_placeholder("root_id"),
            parent_id=_placeholder("parent_id"),
            reply_to=_placeholder("reply_to"),
            argsrepr=_placeholder("args_repr"),
            kwargsrepr=_placeholder("kwargs_repr"),
            **header_options,
        )
        producer = Recorder(channel, auto_declare=False)
        app.amqp.send_task_message(producer, name, message, queue=queue, retry=False, **options)
        destination, envelope = producer.recorded
        target = _target(channel, destination, envelope)
        body = _text_of(envelope)
        if target is None or not body.startswith(_BODY_START):
            return None
        envelope["body"] = _placeholder("body")
        envelope["properties"]["delivery_tag"] = _placeholder("tag")
        rest_of_body = body.removeprefix(_BODY_START)
        return cls(dumps(envelope), rest_of_body, channel.max_message_bytes, *target)

    def message(self, job: Job) -> bytes:
        """Return the message of `job`."""
        body = b"[%b, %b, %b" % (job.args, job.kwargs, self._rest_of_body)
        values = (*job, b'"%b"' % b2a_base64(body, newline=False), b'"%b"' % new_id().encode())
        message: bytes = self._text % self._in_order(values)
        return message


def new_id() -> str:
    """Return a random UUID of version 4, like Celery's ids; faster than `uuid4`."""
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Recorder(Producer):
    """A producer that records its message, and the queue, instead of sending it."""

    recorded: tuple[str, dict[str, Any]]

    def _publish(
        self,
        body: Any,
        priority: Any,
        content_type: Any,
        content_encoding: Any,
        headers: Any,
        properties: Any,
        routing_key: Any,
        mandatory: Any,
        immediate: Any,
        exchange: Any,
        declare: Any,
        *rest: Any,
    ) -> None:
        channel: Any = self.channel
        message = channel.prepare_message(
            body, priority, content_type, content_encoding, headers, properties
        )
        for entity in declare:
            self.maybe_declare(entity)
        channel._inplace_augment_message(message, exchange, routing_key)  # noqa: SLF001 - kombu's
        self.recorded = ("" if exchange else routing_key, message)


def _placeholder(name: str) -> str:
    return f"{_TOKEN}-{name}"


def _target(channel: Channel, queue: str, envelope: dict[str, Any]) -> tuple[str, int] | None:
    """Return a message's stream and its maximum length; None if it is not sent to a stream."""
    is_transient = envelope["properties"].get("delivery_mode") == TRANSIENT
    if not queue or is_transient or channel.is_list(queue):
        return None
    step = channel.queues.step_of(envelope)
    _, key, (max_length, _) = channel.queues.publication(queue, step, "")
    return key, max_length


def _text_of(envelope: Mapping[str, Any]) -> str:
    """Return the JSON of a message's body; "" if it is not JSON, or compressed."""
    is_json = envelope["content-type"] == "application/json"
    is_encoded = envelope["properties"]["body_encoding"] == "base64"
    if not is_json or not is_encoded or envelope["headers"].get("compression"):
        return ""
    return a2b_base64(envelope["body"]).decode()


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
