"""huey's tasks: blocking fetches, and a notice for whoever waits for a result."""

import os
import time

from huey import RedisHuey

from bench.peers.protocol import MOMENT, URL

huey = RedisHuey("bench", url=os.environ[URL], blocking=True, notify_result=True)


@huey.task()
def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


@huey.task()
def who() -> int:
    """Return who does this, after a moment."""
    time.sleep(MOMENT)
    return os.getpid()
