"""A Celery program whose tasks try what the pool has to bear."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded

from celery_streams import settings
from celery_streams.worker import child, pool

URL = os.environ["PLAIN_URL"]

app = Celery("pooled", set_as_current=False)
app.conf.update(
    settings(URL),
    broker_transport_options={"lease": 2},
    task_reject_on_worker_lost=True,
)


_ = app.events.Dispatcher  # as after a job that a module sends when it is imported
# What a process is given, and a busy machine may not be enough for, before it is killed.
pool.INTERVAL = child.GRACE = float(os.environ.get("POOLED_INTERVAL", pool.INTERVAL))


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


@app.task(shared=False, time_limit=4)
def catches(folder: str) -> str:
    """Wait, and return whatever ends that; at the next run, return at once."""
    begun = Path(folder) / "begun"
    if begun.exists():
        return "again"
    begun.touch()
    try:
        time.sleep(60)
    except BaseException:  # noqa: BLE001 - as careless tasks do
        return "caught"
    return "slept"


@app.task(shared=False)
def leave(status: int) -> None:
    """End the process with a status."""
    sys.exit(status)


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
