"""Time limits of jobs that run in the worker's own process, whose main thread they are in."""

import logging
import os
import signal
from threading import Thread
from time import monotonic, sleep
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

logger = logging.getLogger(__name__)

#: Seconds between two looks at the hard limit.
INTERVAL = 1.0
#: Seconds to the next alarm at least: a shorter one comes while the last is being answered.
SHORTEST = 0.01


class TimeLimits:
    """Raises SoftTimeLimitExceeded in the job that runs, by SIGALRM; or ends the process.

    In a pool, Celery ends the job's process at its hard limit. This one holds other jobs, too:
    they are given to other workers, as those of any worker that dies, and the job itself comes to
    the dead letters when it has ended one worker after the other.
    """

    def __init__(self) -> None:
        #: Seconds to the first look at a job.
        self._first = INTERVAL
        #: The job that runs: its id, when it began, its limits.
        self._job: tuple[str, float, float | None, float | None] | None = None
        self._watch: Thread | None = None

    def arm(self, least: float) -> None:
        """Look after jobs, of limits of so many seconds at least, in this thread, the main one."""
        self._first = min(max(least, SHORTEST), INTERVAL)
        if self._watch is None:
            signal.signal(signal.SIGALRM, self._on_alarm)
            self._watch = Thread(target=self._watch_hard_limit, name="time limits", daemon=True)
            self._watch.start()
        signal.setitimer(signal.ITIMER_REAL, self._first)

    def disarm(self) -> None:
        """Look after no job until `arm` is called again."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def is_busy(self) -> bool:
        """True while a job runs."""
        return self._job is not None

    def begin(self, job_id: str, soft: float | None, hard: float | None) -> None:
        """Note that a job begins, and its limits in seconds; None or 0 is for none."""
        self._job = (job_id, monotonic(), soft, hard)

    def end(self) -> None:
        """Note that it has ended."""
        self._job = None

    def _on_alarm(self, number: int, frame: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._first)
        if self._job is None:
            return
        job_id, began, soft, hard = self._job
        left = began + soft - monotonic() if soft else self._first
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, min(max(left, SHORTEST), self._first))
            return
        self._job = (job_id, began, None, hard)  # once a job
        logger.warning("Soft time limit (%ss) exceeded for job %s", soft, job_id)
        raise SoftTimeLimitExceeded

    def _watch_hard_limit(self) -> None:
        """End the process where a job does not even end by an exception."""
        while True:
            sleep(INTERVAL)
            job = self._job
            if job and job[3] and monotonic() - job[1] > job[3]:
                logger.critical("Hard time limit (%ss) exceeded for job %s", job[3], job[0])
                os.kill(os.getpid(), signal.SIGKILL)
