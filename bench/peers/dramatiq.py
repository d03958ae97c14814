"""dramatiq, with results in Redis: `send` and `get_result` one by one, a group in bulk."""

import os
from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq import group
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers import protocol
from bench.peers.protocol import TIMEOUT, URL, Client, Pair

MILLISECONDS = 1000 * TIMEOUT

broker = RedisBroker(url=os.environ[URL])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ[URL])))
dramatiq.set_broker(broker)
add = dramatiq.actor(protocol.add, store_results=True)
who = dramatiq.actor(protocol.who, store_results=True)


class Peer(Client):
    """dramatiq's client."""

    submit_one = staticmethod(add.send)
    submit_who = staticmethod(who.send)

    def value(self, handle: Any) -> Any:
        """Wait by `get_result`; the backend blocks in Redis, and does not poll."""
        return handle.get_result(block=True, timeout=MILLISECONDS)

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a group."""
        return group(add.message(x, y) for x, y in pairs).run()

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values."""
        return list(handle.get_results(block=True, timeout=MILLISECONDS))
