"""taskiq's tasks on either of its brokers for Redis: BENCH_VARIANT is list or stream."""

import os
import time

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from bench.peers.protocol import MOMENT, URL, VARIANT

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
    time.sleep(MOMENT)  # noqa: ASYNC251 - so that another worker gets the next one
    return os.getpid()
