"""rq: `enqueue` one by one, `enqueue_many` in bulk; results by blocking reads."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from redis import Redis
from rq import Queue

from bench.peers.protocol import TIMEOUT, URL, Client, Pair, add, who


class Peer(Client):
    """rq's client."""

    def __init__(self) -> None:
        self.queue = Queue(connection=Redis.from_url(os.environ[URL]))
        self.submit_one = partial(self.queue.enqueue, add)
        self.submit_who = partial(self.queue.enqueue, who)

    def value(self, handle: Any) -> Any:
        """Wait by `latest_result`, which blocks in Redis; `return_value` would be polled."""
        return handle.latest_result(timeout=TIMEOUT).return_value

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit by `enqueue_many`: one pipeline."""
        return self.queue.enqueue_many([Queue.prepare_data(add, args=pair) for pair in pairs])
