"""Tasks that kill their worker, and one whose result tells its runs apart."""

import os
import signal
import time
from uuid import uuid4

from celery import shared_task

#: Bytes of one step of `allocate`, and seconds between two: the kernel ends it in between.
STEP = 32 * 1024 * 1024
PAUSE = 0.01


@shared_task
def kill_the_process() -> None:
    """End the pool process that runs this, each time."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def kill_the_worker() -> None:
    """End the worker whose pool runs this, and the pool with it, each time."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # the kernel ends the pool after its worker, a moment later


@shared_task
def allocate() -> None:
    """Take memory until the kernel ends a process of the container, each time."""
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1024)) * (STEP // 1024))
        time.sleep(PAUSE)


@shared_task
def differ(seconds: float) -> str:
    """Return, after a wait, a text that is another in each run."""
    time.sleep(seconds)
    return uuid4().hex
