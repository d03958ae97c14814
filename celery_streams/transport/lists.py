"""Kombu's own channel, on its lists and fanout exchanges, made safe."""

import logging
from collections.abc import Sequence
from typing import Any

from kombu.transport import redis

from celery_streams import address
from celery_streams.errors import Malformed
from celery_streams.transport.validation import check, check_parsed

logger = logging.getLogger(__name__)


class ListChannel(address.NamedUser, redis.Channel):
    """Kombu's channel, which a malformed message to all consumers does not end."""

    # What the type stubs leave out of kombu's class; the second is an option of ours.
    _queue_cycle: Any
    max_message_bytes: int

    def read_listed(self, reply: Sequence[bytes] | None) -> tuple[dict[str, Any], str] | None:
        """Return a message and its queue; None if the list was empty or the message malformed."""
        if not reply:
            return None
        name, text = reply
        queue = name.decode().removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
        try:
            message = check(text, self.max_message_bytes)
        except Malformed as error:
            self._queue_cycle.rotate(queue)
            logger.warning("dropped a message of %s: %s", queue, error)
            return None
        return message, queue

    def _receive_one(self, client: Any) -> Any:
        try:
            return super()._receive_one(client)  # type: ignore[misc]  # not in the stubs
        except RecursionError:  # kombu handles everything else that is not JSON
            logger.warning("dropped a message to all consumers: it is nested too deeply")
            return False

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        try:
            check_parsed(message)
        except Malformed as error:
            logger.warning("dropped a message of the exchange %s: %s", exchange, error)
            return False
        return super()._deliver_fanout_message(message, exchange)  # type: ignore[misc]
