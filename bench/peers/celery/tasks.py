"""Stock Celery's tasks: a plain app, tuned as its guide to optimizing says."""

import os
import time

from celery import Celery

from bench.peers.protocol import MOMENT, URL

app = Celery("stock", broker=os.environ[URL], backend=os.environ[URL])
app.conf.update(
    # As safe as it gets: acknowledged when it is done, not when it is taken.
    task_acks_late=True,
    # The guide: many short tasks want more of them fetched ahead than 4.
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


@app.task
def who() -> int:
    """Return who does this, after a moment."""
    time.sleep(MOMENT)
    return os.getpid()
