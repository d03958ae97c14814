"""A process of the pool, as the main process sees it."""

import os
import signal
from itertools import count
from time import monotonic
from typing import Any

import billiard

from celery_streams.worker.process import Process
from celery_streams.worker.scoreboard import Slot

_numbers = count(1)


class Child:
    """Starts a process of a `worker.pool.TaskPool`."""

    def __init__(self, pool: Any) -> None:
        self.slot: Slot = pool.scoreboard.add()
        self.started = monotonic()
        #: The start of the job at which the process has last been woken, and of the one whose
        #: hard limit ended the process.
        self.woken_at = self.ended_at = 0.0
        main = Process(pool, self.slot).main
        # As in Celery's prefork: programs show it in their logs.
        self.process = billiard.Process(target=main, name=f"ForkPoolWorker-{next(_numbers)}")
        self.process.daemon = True
        self.process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.process.pid or 0)

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.exitcode is None

    def wake(self) -> None:
        """Have the process look at its slot."""
        self.kill(signal.SIGUSR1)

    def kill(self, number: int) -> None:
        """Send a signal, if the process still exists: it is not reaped before."""
        if self.is_alive:
            os.kill(self.pid, number)

    def stop(self) -> None:
        """Let the process end after its job."""
        self.slot.fields.stops = True
        self.wake()
