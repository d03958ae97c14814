"""saq's functions and its worker's settings."""

import os
import time
from typing import Any

from saq import Queue

from bench.peers.protocol import MOMENT, URL

queue = Queue.from_url(os.environ[URL])


async def add(_: Any, *, x: int, y: int) -> int:
    """Return x + y."""
    return x + y


async def who(_: Any) -> int:
    """Return the id of this process, after a short sleep."""
    time.sleep(MOMENT)  # noqa: ASYNC251 - so that another worker gets the next one
    return os.getpid()


settings = {"queue": queue, "functions": [add, who], "concurrency": 10}
