"""Sends messages into streams, hundreds at once, on connections that do nothing else.

Kombu and redis-py take 60 µs for a command, and kombu sends messages one by one.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from celery_streams.protocol import pack
from celery_streams.scripts import PUBLISH
from celery_streams.transport.queues import refusal


class Sender:
    """Connections made as those of a kombu channel are; threads may share it."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        # What fails is for whoever sends to try again, by a policy of its own.
        own: dict[str, Any] = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
        self._parameters = {**parameters, **own}
        self._kind = self._parameters.pop("connection_class")
        self._parameters.pop("max_connections", None)
        #: Connections that nobody uses just now, and the process that made them.
        self._idle: list[Any] = []
        self._process = os.getpid()

    def publish(self, key: str, most: int, messages: Sequence[bytes]) -> None:
        """Append messages to a stream that takes so many, all or none.

        Raises QueueFull; or redis-py's errors, after which the messages may be there.
        """
        if self._process != os.getpid():  # the parent's connections stay the parent's
            self._idle, self._process = [], os.getpid()
        connection = self._taken()
        try:
            self._run(connection, key, most, messages)
        except ResponseError as error:
            self._idle.append(connection)
            raise refusal(error) from None
        except BaseException:
            connection.disconnect()  # a reply may be under way
            self.close()  # those of its age
            raise
        self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(OSError, RedisError):
                connection.disconnect()

    def _taken(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return self._kind(**self._parameters)

    @staticmethod
    def _run(connection: Any, key: str, most: int, messages: Sequence[bytes]) -> None:
        arguments = (1, key, most, *messages)
        connection.send_packed_command([pack(b"EVALSHA", _DIGEST, *arguments)])
        try:
            connection.read_response()
        except NoScriptError:  # the first time, and after a restart of the server
            connection.send_packed_command([pack(b"EVAL", _SOURCE, *arguments)])
            connection.read_response()


_DIGEST, _SOURCE = PUBLISH.digest.encode(), PUBLISH.source.encode()
