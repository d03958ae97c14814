"""arq's functions and its worker's settings."""

import os
import time
from typing import Any, ClassVar

from arq.connections import RedisSettings

from bench.peers.protocol import MOMENT, URL

redis_settings = RedisSettings.from_dsn(os.environ[URL])
#: Poll interval of the queue, in seconds; arq's default of 0.5 would dominate the times, and a
#: shorter one lowers the throughput.
POLL = 0.005


async def add(_: Any, x: int, y: int) -> int:
    """Return x + y."""
    return x + y


async def who(_: Any) -> int:
    """Return the id of this process, after a short sleep."""
    time.sleep(MOMENT)  # noqa: ASYNC251 - so that another worker gets the next one
    return os.getpid()


class WorkerSettings:
    """Settings that arq's command reads."""

    functions: ClassVar = [add, who]
    redis_settings = redis_settings
    poll_delay = POLL
    max_jobs = 10
