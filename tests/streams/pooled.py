"""A Celery program whose tasks try what the pool has to bear."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded

from celery_streams import settings
from celery_streams.worker import pool

URL = os.environ["PLAIN_URL"]

app = Celery("pooled", set_as_current=False)
app.conf.update(
    settings(URL),
    broker_transport_options={"lease": 2},
    task_reject_on_worker_lost=True,
)


# What a process is given, and a busy machine may not be enough for, before it is killed.
pool.INTERVAL = float(os.environ.get("POOLED_INTERVAL", pool.INTERVAL))


class RaisesAfterwards(Task[Any, Any]):
    """A task whose hooks raise an error."""

    def on_failure(self, *_: object) -> None:
        """Raise an error."""
        raise RuntimeError("in the hook")


@app.task(shared=False)
def pid() -> int:
    """Return the process' id."""
    return os.getpid()


@app.task(shared=False)
def sleep(seconds: float) -> int:
    """Sleep, and return the process' id."""
    time.sleep(seconds)
    return os.getpid()


@app.task(shared=False, base=RaisesAfterwards, time_limit=1)
def too_long() -> None:
    """Run into the hard time limit."""
    time.sleep(60)


@app.task(shared=False, time_limit=4)
def cleans_up(folder: str) -> None:
    """Wait, with a file that shows it, and another one in the end."""
    try:
        (Path(folder) / "begun").touch()
        time.sleep(60)
    finally:
        (Path(folder) / "ended").touch()


@app.task(shared=False, rate_limit="20/s")
def limited(number: int) -> int:
    """Return a number, at a limited rate."""
    return number


@app.task(shared=False)
def until_told() -> str:
    """Wait for the soft limit, or for a minute."""
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "told"
    return "not told"


@app.task(shared=False)
def end() -> None:
    """End the process."""
    os.kill(os.getpid(), signal.SIGKILL)
