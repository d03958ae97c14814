"""A task's message, serialised once, with placeholders for the per-job fields.

Celery and kombu are slow to build a message, mostly because of options that are rarely given. Here
they build one message per task; each later job only fills in the placeholders.
"""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from copy import deepcopy
from operator import itemgetter
from types import NoneType
from typing import Any, Self
from uuid import uuid4

from celery.canvas import Signature
from kombu.messaging import Producer
from kombu.utils.json import dumps, loads

from celery_streams import bundles
from celery_streams.producer.jobs import Job, new_id
from celery_streams.producer.observed import Parts
from celery_streams.transport.channel import Channel
from celery_streams.transport.publishing import TRANSIENT

#: Marks a placeholder; random, so that no other text in a message can contain it.
_TOKEN = uuid4().hex
#: Options of a job that its message carries in the headers.
_HEADER_OPTIONS = ("ignore_result", "time_limit", "soft_time_limit")
#: Options that are part of the template, and their types.
OF_TEMPLATE = ("priority", "ignore_result", "time_limit", "soft_time_limit")
_SIMPLE = frozenset({NoneType, bool, int, float, str})
#: Celery's tasks that run another task, which decides where their jobs go.
_WRAPPERS = frozenset({"celery.map", "celery.starmap"})
_BODY_START = "[[], {}, "


class Template:
    """A task's message with placeholders for the per-job fields, and its target stream."""

    def __init__(
        self,
        text: str,
        rest_of_body: str,
        parts: Parts,
        max_bytes: int,
        key: str,
        max_length: int,
    ) -> None:
        fields = (*Job._fields, "body", "tag")
        text, *rest = re.split(f'"{_placeholder("(.+?)")}"', text)
        names, texts = rest[::2], [text, *rest[1::2]]
        #: The message with a %b per placeholder, and a getter of the values in that order.
        self._text = "%b".join(each.replace("%", "%%") for each in texts).encode()
        self._in_order = itemgetter(*map(fields.index, names))
        self._rest_of_body = rest_of_body.encode()
        #: What the text is made of.
        self.parts = parts
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
        message.properties.update(options)
        producer = Recorder(channel, auto_declare=False)
        where = _where(app, queue)
        producer.publish(message.body, headers=message.headers, **where, **message.properties)
        destination, envelope = producer.recorded
        target = _target(channel, destination, envelope)
        body = _text_of(envelope)
        if target is None or not body.startswith(_BODY_START):
            return None
        parts = Parts(
            name,
            dict(message.headers),
            dict(message.properties),
            loads(body)[2],
            *producer.where,
            dict(app.conf.task_publish_retry_policy),
            deepcopy(envelope),
        )
        envelope["body"] = _placeholder("body")
        envelope["properties"]["delivery_tag"] = _placeholder("tag")
        rest_of_body = body.removeprefix(_BODY_START)
        return cls(dumps(envelope), rest_of_body, parts, channel.max_message_bytes, *target)

    def message(self, job: Job) -> bytes:
        """Return the message of `job`."""
        body = b"[%b, %b, %b" % (job.args, job.kwargs, self._rest_of_body)
        values = (*job, b'"%b"' % b2a_base64(body, newline=False), b'"%b"' % new_id().encode())
        message: bytes = self._text % self._in_order(values)
        return message


class Recorder(Producer):
    """A producer that records its message, and the queue, instead of sending it."""

    recorded: tuple[str, dict[str, Any]]
    #: The exchange, the routing key, and what is declared.
    where: tuple[str, str, list[Any]]

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
        self.where = (exchange, routing_key, declare)


def _where(app: Any, queue: Any) -> dict[str, Any]:
    """Return where and how Celery publishes to a queue, without the signals that it sends."""
    conf, exchange = app.conf, queue.exchange
    is_direct = exchange.type == "direct"
    return {
        "exchange": "" if is_direct else exchange.name or app.amqp.default_exchange,
        "routing_key": queue.name if is_direct else queue.routing_key,
        "serializer": conf.task_serializer,
        "compression": conf.task_compression,
        "delivery_mode": exchange.delivery_mode or conf.task_default_delivery_mode,
        "declare": [queue],
    }


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


def routed_by(name: str, kwargs: Any) -> Any:
    """Return the task whose route a job takes: the one that a map, starmap or bundle runs."""
    if name == bundles.NAME:
        return kwargs["task"]
    if name in _WRAPPERS and isinstance(kwargs, dict) and isinstance(kwargs.get("task"), Signature):
        return kwargs["task"]["task"]
    return name


def key_of(name: str, options: Mapping[str, Any], kwargs: Any) -> tuple[Any, ...] | None:
    """Return what jobs with the same template have in common; None if they can have none."""
    values = [options.get(each) for each in OF_TEMPLATE]
    routed = routed_by(name, kwargs)
    if not _SIMPLE.issuperset(map(type, values)):
        return None
    if options.get("route_name") not in {None, routed}:
        return None
    # With their types: True, which is not a priority, is equal to 1.
    return (name, routed, *values, *map(type, values))
