"""The message of a plain job, made once by Celery and kombu, with gaps for what differs.

Celery and kombu take 150 µs to put a message together, most of it for options that nobody gave.
Here they make one for each task; those after it are that one with other values in their places.
"""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from operator import itemgetter
from os import urandom
from typing import Any, NamedTuple, Self
from uuid import uuid4

from kombu.messaging import Producer
from kombu.utils.json import dumps

from celery_streams.transport.channel import Channel
from celery_streams.transport.publishing import TRANSIENT

#: Stands where a value is filled in. No text of a message can hold it by chance.
_TOKEN = uuid4().hex
#: Options that a message names among its headers.
OF_JOB = ("ignore_result", "time_limit", "soft_time_limit")
_BODY = "[[], {}, "


class Job(NamedTuple):
    """What differs from job to job, as JSON."""

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
    """How the messages of one task begin, go on and end, and where they go."""

    def __init__(self, text: str, rest_of_body: str, key: str, max_length: int) -> None:
        fields = (*Job._fields, "body", "tag")
        text, *rest = re.split(f'"{_gap("(.+?)")}"', text)
        names, texts = rest[::2], [text, *rest[1::2]]
        #: The message with a %b in each gap, and what picks from all values those in their order.
        self._text = "%b".join(each.replace("%", "%%") for each in texts).encode()
        self._in_order = itemgetter(*map(fields.index, names))
        self._rest_of_body = rest_of_body.encode()
        #: The stream, and how many messages it takes.
        self.key, self.max_length = key, max_length

    @classmethod
    def of(cls, app: Any, channel: Channel, name: str, queue: Any, **options: Any) -> Self | None:
        """Return the template of a task's messages to a queue, which is declared.

        None where a message is not plain JSON in a stream. Options are those of `send_task`.
        """
        if not isinstance(channel, Channel) or app.conf.task_protocol != 2:  # noqa: PLR2004
            return None
        of_job = {each: options.pop(each, None) for each in OF_JOB}
        message = app.amqp.as_task_v2(
            *(_gap("id"), name, (), {}),
            group_id=_gap("group"),
            group_index=_gap("group_index"),
            root_id=_gap("root_id"),
            parent_id=_gap("parent_id"),
            reply_to=_gap("reply_to"),
            argsrepr=_gap("args_repr"),
            kwargsrepr=_gap("kwargs_repr"),
            **of_job,
        )
        producer = Recorder(channel, auto_declare=False)
        app.amqp.send_task_message(producer, name, message, queue=queue, retry=False, **options)
        destination, envelope = producer.recorded
        place = _place(channel, destination, envelope)
        body = _text_of(envelope)
        if place is None or not body.startswith(_BODY):
            return None
        envelope["body"] = _gap("body")
        envelope["properties"]["delivery_tag"] = _gap("tag")
        return cls(dumps(envelope), body.removeprefix(_BODY), *place)

    def message(self, job: Job) -> bytes:
        """Return the message of a job."""
        body = b"[%b, %b, %b" % (job.args, job.kwargs, self._rest_of_body)
        values = (*job, b'"%b"' % b2a_base64(body, newline=False), b'"%b"' % new_id().encode())
        message: bytes = self._text % self._in_order(values)
        return message


def new_id() -> str:
    """Return a random id as Celery's: a UUID of version 4, in a quarter of the time."""
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Recorder(Producer):
    """A producer that keeps what it would send."""

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


def _gap(name: str) -> str:
    return f"{_TOKEN}-{name}"


def _place(channel: Channel, queue: str, envelope: dict[str, Any]) -> tuple[str, int] | None:
    """Return a message's stream, and how many messages that takes; None if it goes elsewhere."""
    is_transient = envelope["properties"].get("delivery_mode") == TRANSIENT
    if not queue or is_transient or channel.is_list(queue):
        return None
    step = channel.queues.step_of(envelope)
    _, key, (max_length, _) = channel.queues.publication(queue, step, "")
    return key, max_length


def _text_of(envelope: Mapping[str, Any]) -> str:
    """Return the JSON of a message's body, nothing if it is none, or compressed."""
    is_json = envelope["content-type"] == "application/json"
    is_encoded = envelope["properties"]["body_encoding"] == "base64"
    if not is_json or not is_encoded or envelope["headers"].get("compression"):
        return ""
    return a2b_base64(envelope["body"]).decode()
