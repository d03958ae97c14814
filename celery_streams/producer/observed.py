"""Plain jobs whose sending is observed: by receivers of Celery's signals, or with own headers.

Receivers may change what is sent: tracers such as OpenTelemetry's add headers. So the message is
not filled into its template's text; it is built of the template's parts.
"""

from binascii import b2a_base64
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from celery import signals
from kombu.utils.json import dumps, loads

from celery_streams import fastjson
from celery_streams.producer.jobs import Job, new_id

#: The signals that are sent for plain jobs.
SIGNALS = (signals.before_task_publish, signals.after_task_publish)


def is_observed(options: Mapping[str, Any]) -> bool:
    """Return True if a signal has receivers, or the options have headers."""
    before, after = SIGNALS
    return bool(before.receivers or after.receivers or options.get("headers"))


class Parts(NamedTuple):
    """The parts of a task's messages, and where they are sent."""

    name: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    #: The third part of a body: callbacks, chain and chord.
    embedded: dict[str, Any]
    exchange: str
    routing_key: str
    declare: list[Any]
    retry_policy: dict[str, Any]
    #: The message as kombu makes it.
    envelope: dict[str, Any]


class ObservedJob:
    """A plain job, as receivers see it, while it is sent."""

    def __init__(self, parts: Parts, job: Job, options: Mapping[str, Any]) -> None:
        self._parts = parts
        known = {name: loads(value) for name, value in job._asdict().items()}
        names = ("id", "root_id", "parent_id", "group", "group_index")
        self._headers = {
            **parts.headers,
            **{name: known[name] for name in names},
            "argsrepr": known["args_repr"],
            "kwargsrepr": known["kwargs_repr"],
            **(options.get("headers") or {}),
        }
        self._properties = {
            **parts.properties,
            "correlation_id": known["id"],
            "reply_to": known["reply_to"],
        }
        self._body = (tuple(known["args"]), known["kwargs"], deepcopy(parts.embedded))

    def message(self) -> bytes | None:
        """Tell receivers that the job is about to be sent, and return its message.

        None if they have changed its properties, by which kombu decides where it goes.
        """
        parts, properties = self._parts, dict(self._properties)
        signals.before_task_publish.send(
            sender=parts.name,
            body=self._body,
            exchange=parts.exchange,
            routing_key=parts.routing_key,
            declare=parts.declare,
            headers=self._headers,
            properties=self._properties,
            retry_policy=dict(parts.retry_policy),
        )
        if self._properties != properties:
            return None
        body = fastjson.encode(self._body) or dumps(self._body).encode()
        own = {**parts.envelope["properties"], **properties, "delivery_tag": new_id()}
        envelope = {
            **parts.envelope,
            "body": b2a_base64(body, newline=False).decode(),
            "headers": self._headers,
            "properties": own,
        }
        return fastjson.encode(envelope) or dumps(envelope).encode()

    def publish(self, producer: Any) -> None:
        """Publish the job by kombu, with the properties that receivers have changed."""
        parts = self._parts
        producer.publish(
            self._body,
            exchange=parts.exchange,
            routing_key=parts.routing_key,
            serializer="json",
            declare=parts.declare,
            headers=self._headers,
            retry=True,
            retry_policy=dict(parts.retry_policy),
            **self._properties,
        )

    def sent(self) -> None:
        """Tell receivers that the job is sent."""
        signals.after_task_publish.send(
            sender=self._parts.name,
            body=self._body,
            headers=self._headers,
            exchange=self._parts.exchange,
            routing_key=self._parts.routing_key,
        )
