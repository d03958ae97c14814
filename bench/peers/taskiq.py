"""taskiq on either of its brokers for Redis: `kiq` one by one, gathered in bulk."""

import os
from typing import Any

import uvloop
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from bench.peers import protocol
from bench.peers.on_asyncio import POLL, AsyncClient
from bench.peers.protocol import TIMEOUT, URL, VARIANT

_url = os.environ[URL]
_brokers = {"list": ListQueueBroker, "stream": RedisStreamBroker}
broker = _brokers[os.environ[VARIANT]](_url).with_result_backend(
    RedisAsyncResultBackend(_url, result_ex_time=3600)
)


@broker.task
async def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


@broker.task
async def who() -> int:
    """Return the id of this process, after a short sleep."""
    return protocol.who()


class Peer(AsyncClient):
    """taskiq's client, with its result backend for Redis."""

    submit_one = staticmethod(add.kiq)
    submit_who = staticmethod(who.kiq)

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.run(broker.startup())

    async def value(self, handle: Any, poll: float = POLL) -> Any:
        """Wait by `wait_result`."""
        result = await handle.wait_result(check_interval=poll, timeout=TIMEOUT)
        return result.return_value
