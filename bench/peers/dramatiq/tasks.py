"""dramatiq's actors, with results in Redis."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers.protocol import MOMENT, URL

broker = RedisBroker(url=os.environ[URL])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ[URL])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


@dramatiq.actor(store_results=True)
def who() -> int:
    """Return the id of this process, after a short sleep."""
    time.sleep(MOMENT)
    return os.getpid()
