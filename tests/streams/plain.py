"""A plain Celery program with the library's settings."""

import multiprocessing
import os
import time
from typing import Any
from uuid import uuid4

from celery import Celery
from celery.exceptions import WorkerShutdown
from kombu import Exchange, Queue

URL = os.environ["PLAIN_URL"]

app = Celery(
    "plain",
    broker=URL,
    backend=f"celery_streams:RedisBackend+{URL}",
    set_as_current=False,
)
app.conf.update(
    broker_transport="celery_streams:Transport",
    broker_transport_options={"lease": 2},
    broker_connection_retry_on_startup=True,
    worker_consumer="celery_streams:Consumer",
    worker_pool=os.environ.get("PLAIN_POOL", "celery_streams:TaskPool"),
    worker_autoscaler="celery_streams:Autoscaler",
    task_acks_late=True,
    # A queue on kombu's lists beside that on a stream.
    task_queues=[
        Queue("celery", Exchange("celery"), "celery"),
        Queue("listed", Exchange("listed"), "listed", durable=False),
    ],
)

COUNT = """
if redis.call('SADD', KEYS[2], ARGV[1]) == 1 then redis.call('INCR', KEYS[1]) end
return redis.call('GET', KEYS[1])
"""


@app.task(shared=False)
def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


@app.task(shared=False)
def total(numbers: list[int]) -> int:
    """Return their sum."""
    return sum(numbers)


@app.task(shared=False)
def runs_of(name: str, seconds: float) -> int:
    """Return how often a job has begun under `name`, after `seconds`."""
    backend: Any = app.backend
    # Sent again if the reply was lost with its connection, and counted once all the same.
    count = backend.ensure(backend.client.eval, (COUNT, 2, name, f"counted {name}", uuid4().hex))
    time.sleep(seconds)
    return int(count)


@app.task(shared=False)
def raises(name: str) -> None:
    """Raise an unusual exception."""
    errors: dict[str, BaseException] = {
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "memory": MemoryError("all"),
        "shutdown": WorkerShutdown(3),
    }
    raise errors[name]


@app.task(shared=False)
def process_name() -> str:
    """Return the name of the process that runs this."""
    return multiprocessing.current_process().name
