"""A process of the pool, as the main process sees it."""

import os
import signal
from itertools import count
from time import monotonic
from typing import Any

import billiard
from billiard.common import TERM_SIGNAL

from celery_streams.worker.process import Process
from celery_streams.worker.scoreboard import Running, Slot

_numbers = count(1)

#: Seconds that a job has for its `finally` blocks when it is ended.
GRACE = 0.1
#: A soft limit, in seconds, that every job has reached.
NOW = 1e-9


class Child:
    """Starts a process of a `worker.pool.TaskPool`."""

    def __init__(self, pool: Any) -> None:
        self.slot: Slot = pool.scoreboard.add()
        self.started = monotonic()
        #: The start of the job for which it was last woken, and of the one whose soft limit was
        #: logged.
        self.woken_for = self.warned_for = 0.0
        #: The job that it was told to end, and when.
        self._ending: Running | None = None
        self._told_at = 0.0
        main = Process(pool, self.slot).main
        # As in Celery's prefork: programs show it in their logs.
        self.process = billiard.Process(target=main, name=f"ForkPoolWorker-{next(_numbers)}")
        self.process.daemon = True
        # Programs name files by it: `--logfile=%n%I.log`.
        self.process.index = self.slot.index - 1  # type: ignore[attr-defined]  # not in the stubs
        # Until the process has its own handler, a signal to wake it would end it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self.process.start()
        except BaseException:
            pool.scoreboard.remove(self.slot)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.process.pid or 0)

    @property
    def exitcode(self) -> int:
        """The status that it has ended with."""
        return int(self.process.exitcode or 0)

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.exitcode is None

    def terminate_job(self, number: int) -> None:
        """Send a signal because of the running job.

        SIGUSR1 raises SoftTimeLimitExceeded in it, as in Celery's prefork.
        """
        if number == signal.SIGUSR1:
            self.slot.fields.soft = NOW
        self.kill(number)

    def end_job(self, job: Running) -> None:
        """End a job; called again later, so that nothing can catch it."""
        if not self._is_ending(job):
            self._ending, self._told_at = job, monotonic()
            self.kill(TERM_SIGNAL)
        elif monotonic() - self._told_at > GRACE:
            self.kill(signal.SIGKILL)

    def exceeded(self, job: Running) -> float:
        """Return the hard limit for which a job was ended, in seconds; 0 for none."""
        return self._ending.hard if self._ending and self._is_ending(job) else 0

    def _is_ending(self, job: Running) -> bool:
        return self._ending is not None and self._ending.started == job.started

    def close(self) -> None:
        """Free what a process takes that has ended."""
        self.process.join()

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
