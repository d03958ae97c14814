"""RabbitMQ as the broker: how its queues are declared, and how workers and callers connect.

All of it applies where the broker's URL says amqp or amqps, and nowhere else.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu
from celery import bootsteps
from kombu import Exchange, Queue
from kombu.transport import pyamqp

from cluster import password

VARIABLE = "RABBITMQ_PASSWORD_FILE"
#: Where `make` leaves the password it made, seen from the project's root.
DEFAULT = password.SECRETS / "rabbitmq_password"

#: How often a job may run again after its worker died, as a task may be retried: one that
#: kills every worker ends as a dead letter. RabbitMQ's own limit is 20.
DELIVERY_LIMIT = 3
#: Where what no worker takes is kept, with RabbitMQ's reason in its headers (x-death).
DEAD = Queue("dead", Exchange("dead", type="fanout"), queue_arguments={"x-queue-type": "quorum"})

_QUEUE_ARGUMENTS = {
    # Replicated if RabbitMQ is, on disk before the broker confirms, and with a delivery limit.
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-dead-letter-exchange": DEAD.exchange.name,
    # A dead letter leaves its queue when the other has it; RabbitMQ asks for both.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

#: Arguments of py-amqp's connections, for Celery's broker_transport_options.
TRANSPORT_OPTIONS = {
    # A job is accepted when the broker has it on disk, and not before.
    "confirm_publish": True,
    # Seconds: a connection that went silent must not hang anybody (no limits by default).
    "connect_timeout": 5,
    "read_timeout": 10,
    "write_timeout": 10,
}


def is_url(url: str) -> bool:
    """Tell whether a broker's URL is one of RabbitMQ."""
    return url.partition("://")[0] in {"amqp", "amqps"}


def check_url(url: str, name: str) -> None:
    """Raise ValueError, calling the URL `name`, where its host or its port is none."""
    try:
        is_whole = urlsplit(url).port != 0
    except ValueError:
        is_whole = False
    if not is_whole or any(character.isspace() for character in url) or ";" in url:
        raise ValueError(f"{name} must be a URL such as amqp://user@127.0.0.1:5672/vhost")


def transport(url: str) -> str:
    """Return the name of the transport for a URL."""
    kind = SSLTransport if url.startswith("amqps://") else Transport
    return f"{__name__}:{kind.__name__}"


def settings(queues: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return Celery's settings that differ where RabbitMQ is the broker."""
    return {
        "task_queues": {
            name: {
                **queue,
                # Jobs that wait for their time wait in RabbitMQ: that needs this type.
                "exchange_type": "topic",
                "queue_arguments": _QUEUE_ARGUMENTS,
            }
            for name, queue in queues.items()
        },
        "broker_transport_options": TRANSPORT_OPTIONS,
        # RabbitMQ counts deliveries, but nobody would tell the caller at its limit.
        "task_retry_on_worker_lost": True,
        # Seconds; a worker gives up a broker that is silent for two of them (default: 120).
        "broker_heartbeat": 10,
    }


def password_file() -> Path | None:
    """Return the password file to use, or None where there is none."""
    return password.path(VARIABLE, DEFAULT)


def read_password() -> str:
    """Return the password in the file. Raises Unreachable if it can't be read or is empty."""
    return password.read("RabbitMQ", VARIABLE, DEFAULT)


class Transport(pyamqp.Transport):
    """Kombu's transport, which takes the password from the file at each connection.

    A file that is named wins over a password in the URL, which wins over the project's own
    file. What kombu is given is not the password but the function that reads it.
    """

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        if os.environ.get(VARIABLE):
            client.password = read_password

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """What a URL does not say: our own password for the user it names, or else guest."""
        params: dict[str, Any] = super().default_connection_params
        client: Any = self.client
        if client.userid and password_file():
            params["password"] = read_password
        return params


class SSLTransport(Transport, pyamqp.SSLTransport):
    """The same, by TLS."""


class DeadLetters(bootsteps.StartStopStep):
    """Declares where dead letters go: a queue that nobody has to read for it to be kept."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def include_if(self, consumer: Any) -> bool:
        """Tell whether the broker is RabbitMQ."""
        return is_url(consumer.app.conf.broker_read_url)

    def start(self, consumer: Any) -> None:
        """Declare the queue and its exchange, before the consumer's loop takes any job."""
        with consumer.connection.channel() as channel:
            DEAD(channel).declare()


class Connection(kombu.Connection):
    """Kombu's connection, whose URL is shown as it was given: by its scheme, and not by a class."""

    resolve_aliases = {  # noqa: RUF012 - as kombu's
        **kombu.Connection.resolve_aliases,
        f"{__name__}:{Transport.__name__}": "amqp",
        f"{__name__}:{SSLTransport.__name__}": "amqps",
    }
