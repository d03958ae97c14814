"""huey's tasks: blocking fetches, and a notification for each result."""

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
    """Return the id of this process, after a short sleep."""
    time.sleep(MOMENT)
    return os.getpid()
