"""Kombu's own channel, on its lists and fanout exchanges, made safe."""

import logging
from typing import Any

from kombu.transport import redis

from celery_streams import address
from celery_streams.errors import Malformed
from celery_streams.transport.validation import check_parsed

logger = logging.getLogger(__name__)


class ListChannel(address.NamedUser, redis.Channel):
    """Kombu's channel, which a malformed message to all consumers does not end."""

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
