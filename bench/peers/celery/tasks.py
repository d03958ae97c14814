"""Stock Celery's tasks: a plain app, tuned as its guide to optimizing says."""

import os
import time

from celery import Celery

from bench.peers.protocol import MOMENT, URL

app = Celery("stock", broker=os.environ[URL], backend=os.environ[URL])
app.conf.update(
    # Acknowledge a job after it has run, not before.
    task_acks_late=True,
    # The guide suggests a larger multiplier than 4 for many short tasks.
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


@app.task
def who() -> int:
    """Return the id of this process, after a short sleep."""
    time.sleep(MOMENT)
    return os.getpid()
