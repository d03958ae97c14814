"""Publishes batches of messages to streams, on dedicated connections.

Kombu sends messages one by one, and redis-py's client adds overhead to each command.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from celery_streams.protocol import pack
from celery_streams.scripts import PUBLISH
from celery_streams.transport.queues import refusal


class Sender:
    """A thread-safe pool of connections, opened with the parameters of a kombu channel."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        # The caller retries, by its own policy.
        no_retry: dict[str, Any] = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
        self._parameters = {**parameters, **no_retry}
        self._connection_class = self._parameters.pop("connection_class")
        self._parameters.pop("max_connections", None)
        #: Idle connections, and the process that opened them.
        self._idle: list[Any] = []
        self._process = os.getpid()

    def publish(self, key: str, max_length: int, messages: Sequence[bytes]) -> None:
        """Append all messages to the stream `key`, or none if it would exceed `max_length`.

        Raises QueueFull; or redis-py's errors, after which the messages may have been published.
        """
        if self._process != os.getpid():  # forked: the connections are the parent's
            self._idle, self._process = [], os.getpid()
        connection = self._acquire()
        try:
            self._run(connection, key, max_length, messages)
        except ResponseError as error:
            self._idle.append(connection)
            raise refusal(error) from None
        except BaseException:
            connection.disconnect()  # a reply may still arrive
            self.close()  # the idle ones are probably broken, too
            raise
        self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(OSError, RedisError):
                connection.disconnect()

    def _acquire(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connection_class(**self._parameters)

    @staticmethod
    def _run(connection: Any, key: str, max_length: int, messages: Sequence[bytes]) -> None:
        arguments = (1, key, max_length, *messages)
        connection.send_packed_command([pack(b"EVALSHA", _DIGEST, *arguments)])
        try:
            connection.read_response()
        except NoScriptError:  # on first use, and after a restart of the server
            connection.send_packed_command([pack(b"EVAL", _SOURCE, *arguments)])
            connection.read_response()


def publish_with_retries(
    app: Any, key: str, max_length: int, messages: Sequence[bytes], policy: Mapping[str, Any]
) -> None:
    """Publish messages as `Sender` does, by an app's producer, and retry as Celery does.

    `policy` overrides Celery's retry policy. Raises QueueFull or kombu's OperationalError.
    """
    with app.producer_or_acquire() as producer:

        def publish() -> None:
            PUBLISH(producer.channel.plain_client, [key], max_length, *messages)

        policy = {**app.conf.task_publish_retry_policy, **policy}
        with producer.connection._reraise_as_library_errors():  # noqa: SLF001 - as Celery
            try:
                producer.connection.ensure(producer, publish, **policy)()
            except ResponseError as error:
                raise refusal(error) from None


_DIGEST, _SOURCE = PUBLISH.digest.encode(), PUBLISH.source.encode()
