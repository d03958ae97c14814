"""A Celery program whose tasks try what the pool has to bear."""

import gc
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from billiard import current_process
from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_init

from celery_streams import settings
from celery_streams.transport import channel, deliveries
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
vars(pool)["GRACE"] = child.GRACE = float(os.environ.get("POOLED_INTERVAL", pool.INTERVAL))


@worker_process_init.connect
def wake_early(**_: object) -> None:
    """Wake a process, as the main one may, before it has begun."""
    if "POOLED_WAKE_EARLY" in os.environ:
        os.kill(os.getpid(), signal.SIGUSR1)


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


@app.task(shared=False, acks_late=False)
def acked(seconds: float) -> int | None:
    """Wait, with the message acked; return the process' index."""
    time.sleep(seconds)
    index: int | None = getattr(current_process(), "index", None)
    return index


@app.task(shared=False)
def close_sockets() -> str:
    """Close all sockets, the worker's, too."""
    for each in gc.get_objects():
        if isinstance(each, socket.socket):
            each.close()
    return "closed"


@app.task(shared=False)
def close_files(folder: str) -> int:
    """Close all files, the worker's, too, and write others, which get their numbers."""
    os.closerange(3, 500)
    for number in range(60):
        file = os.open(f"{folder}/{number}", os.O_CREAT | os.O_RDWR)
        os.write(file, b"mine")
    return os.getpid()


@app.task(shared=False)
def forbid_files() -> int:
    """Let the process write no files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return os.getpid()


@app.task(shared=False)
def block_signals() -> None:
    """Block the signals by which the worker interrupts a job."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})


@app.task(shared=False)
def compute(size: int) -> int:
    """Compute in one call of C, which no signal handler interrupts."""
    return sum(range(size))


@app.task(shared=False)
def end() -> None:
    """End the process."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(shared=False)
def write_down(file: str) -> int:
    """Write down that it runs; return the process."""
    with open(file, "a") as opened:  # noqa: PTH123 - for one write
        opened.write("ran\n")
    return os.getpid()


@app.task(shared=False)
def die_later() -> None:
    """End the process once the job has ended, before it is acked."""
    deliveries.Deliveries.flush = os._exit  # type: ignore[method-assign,assignment]
    channel.Channel.start_fetch = lambda *_: os._exit(1)  # type: ignore[method-assign]
