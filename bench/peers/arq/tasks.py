"""arq's functions and its worker's settings."""

import os
import time
from typing import Any, ClassVar

from arq.connections import RedisSettings

from bench.peers.protocol import MOMENT, URL

redis_settings = RedisSettings.from_dsn(os.environ[URL])
#: Seconds between two looks at the queue; arq's own 0.5 would be all that is measured, and less
#: than this costs jobs a second more than it saves time.
POLL = 0.005


async def add(_: Any, x: int, y: int) -> int:
    """Return x + y."""
    return x + y


async def who(_: Any) -> int:
    """Return who does this, after a moment in which it does nothing else."""
    time.sleep(MOMENT)  # noqa: ASYNC251 - so that another worker gets the next one
    return os.getpid()


class WorkerSettings:
    """What arq's command reads."""

    functions: ClassVar = [add, who]
    redis_settings = redis_settings
    poll_delay = POLL
    max_jobs = 10
