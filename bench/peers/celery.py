"""Stock Celery: a plain app, tuned as its guide to optimizing says; a group in bulk."""

import os
from collections.abc import Sequence
from typing import Any

from celery import Celery, group

from bench.peers import protocol
from bench.peers.protocol import TIMEOUT, URL, Client, Pair

app = Celery("stock", broker=os.environ[URL], backend=os.environ[URL])
app.conf.update(
    # Acknowledge a job after it has run, not before.
    task_acks_late=True,
    # The guide suggests a larger multiplier than 4 for many short tasks.
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)
add, who = app.task(protocol.add), app.task(protocol.who)


class Peer(Client):
    """Stock Celery's client."""

    submit_one = staticmethod(add.delay)
    submit_who = staticmethod(who.delay)

    def value(self, handle: Any) -> Any:
        """Wait by `get`."""
        return handle.get(timeout=TIMEOUT)

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a group."""
        return group(add.s(x, y) for x, y in pairs).apply_async()

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values together."""
        return list(handle.get(timeout=TIMEOUT))
