"""RabbitMQ as the broker: declaration of its queues, and connections of workers and callers.

Used only if the broker's URL begins with amqp:// or amqps://.
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

from cluster.connections import password

VARIABLE = "RABBITMQ_PASSWORD_FILE"
#: Password file that `make` generates.
DEFAULT = password.SECRETS / "rabbitmq_password"

#: Redeliveries of a job whose worker died, before it is dead-lettered: as many as a task has
#: retries. RabbitMQ's default is 20.
DELIVERY_LIMIT = 3
#: Queue of dead letters; RabbitMQ adds the reason to their headers (x-death).
DEAD = Queue("dead", Exchange("dead", type="fanout"), queue_arguments={"x-queue-type": "quorum"})

_QUEUE_ARGUMENTS = {
    # Replicated in a RabbitMQ cluster, on disk before publishing is confirmed, with a limit.
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-dead-letter-exchange": DEAD.exchange.name,
    # Remove a message only when the dead-letter queue has confirmed it; this needs both settings.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

#: Connection arguments of py-amqp, for Celery's broker_transport_options.
TRANSPORT_OPTIONS = {
    # A job counts as submitted only when the broker has it on disk.
    "confirm_publish": True,
    # In seconds, so that a silent connection never blocks for ever (unlimited by default).
    "connect_timeout": 5,
    "read_timeout": 10,
    "write_timeout": 10,
}


def is_url(url: str) -> bool:
    """Return True if a broker's URL is for RabbitMQ."""
    return url.partition("://")[0] in {"amqp", "amqps"}


def check_url(url: str, name: str) -> None:
    """Raise ValueError, calling the URL `name`, if it is invalid."""
    try:
        is_valid = urlsplit(url).port != 0
    except ValueError:
        is_valid = False
    if not is_valid or any(character.isspace() for character in url) or ";" in url:
        raise ValueError(f"{name} must be a URL such as amqp://user@127.0.0.1:5672/vhost")


def transport(url: str) -> str:
    """Return the import path of the transport class for a URL."""
    kind = SSLTransport if url.startswith("amqps://") else Transport
    return f"{__name__}:{kind.__name__}"


def settings(queues: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Celery settings that differ for RabbitMQ."""
    return {
        "task_queues": {
            name: {
                **queue,
                # Celery's delayed delivery in RabbitMQ needs a topic exchange.
                "exchange_type": "topic",
                "queue_arguments": _QUEUE_ARGUMENTS,
            }
            for name, queue in queues.items()
        },
        "broker_transport_options": TRANSPORT_OPTIONS,
        # At RabbitMQ's own delivery limit the caller would get no result.
        "task_retry_on_worker_lost": True,
        # In seconds; a connection is closed after two missed ones (default: 120).
        "broker_heartbeat": 10,
    }


def password_file() -> Path | None:
    """Return the password file to use, or None if there is none."""
    return password.path(VARIABLE, DEFAULT)


def read_password() -> str:
    """Return the password from its file. Raise Unreachable if it can't be read or is empty."""
    return password.read("RabbitMQ", VARIABLE, DEFAULT)


class Transport(pyamqp.Transport):
    """Kombu's transport, which reads the password from its file for each connection.

    A file named by RABBITMQ_PASSWORD_FILE takes precedence over a password in the URL, and that
    over the project's own file. Kombu is given the function that reads the file.
    """

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        if os.environ.get(VARIABLE):
            client.password = read_password

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """Defaults for a URL: with a user but no password, the password file; else guest."""
        params: dict[str, Any] = super().default_connection_params
        client: Any = self.client
        if client.userid and password_file():
            params["password"] = read_password
        return params


class SSLTransport(Transport, pyamqp.SSLTransport):
    """The same transport over TLS."""


class DeadLetters(bootsteps.StartStopStep):
    """Declares the queue of dead letters, which keeps them without any consumer."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def include_if(self, consumer: Any) -> bool:
        """Return True if the broker is RabbitMQ."""
        return is_url(consumer.app.conf.broker_read_url)

    def start(self, consumer: Any) -> None:
        """Declare the queue and its exchange before any message is fetched."""
        with consumer.connection.channel() as channel:
            DEAD(channel).declare()


class Connection(kombu.Connection):
    """Kombu's connection, which shows its URL with the scheme instead of a class path."""

    resolve_aliases = {  # noqa: RUF012 - as kombu's
        **kombu.Connection.resolve_aliases,
        f"{__name__}:{Transport.__name__}": "amqp",
        f"{__name__}:{SSLTransport.__name__}": "amqps",
    }
