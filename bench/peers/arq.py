"""arq: `enqueue_job` one by one, gathered in bulk, and `result`."""

import asyncio
import os
from functools import partial
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from bench.peers.on_asyncio import POLL, AsyncClient, add, who
from bench.peers.protocol import TIMEOUT, URL

redis_settings = RedisSettings.from_dsn(os.environ[URL])


class WorkerSettings:
    """Settings that arq's command reads."""

    functions: ClassVar = [add, who]
    redis_settings = redis_settings
    #: Poll interval of the queue, in seconds; arq's default of 0.5 would dominate the times, and
    #: a shorter one lowers the throughput.
    poll_delay = 0.005
    max_jobs = 10


class Peer(AsyncClient):
    """arq's client."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        redis = self.run(create_pool(redis_settings))
        self.submit_one = partial(redis.enqueue_job, "add")
        self.submit_who = partial(redis.enqueue_job, "who")

    async def value(self, handle: Any, poll: float = POLL) -> Any:
        """Wait by `result`."""
        return await handle.result(timeout=TIMEOUT, poll_delay=poll)
