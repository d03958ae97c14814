"""Tasks that kill their worker, and one whose result differs in each run."""

import os
import signal
import time
from uuid import uuid4

from celery import shared_task

#: Bytes per step of `allocate`, and seconds between steps, so that the kernel can kill it.
STEP = 32 * 1024 * 1024
PAUSE = 0.01


@shared_task
def kill_the_process() -> None:
    """End the pool process each time."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def kill_the_worker() -> None:
    """End the worker, and its pool with it, each time."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # the kernel ends the pool after its worker, a moment later


@shared_task
def allocate() -> None:
    """Allocate memory until the kernel kills a process of the container, each time."""
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1024)) * (STEP // 1024))
        time.sleep(PAUSE)


@shared_task
def differ(seconds: float) -> str:
    """Return a text that differs in each run, after `seconds`."""
    time.sleep(seconds)
    return uuid4().hex
