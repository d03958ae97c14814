"""Time limits of inline jobs, which run in the main thread of the worker's process."""

import logging
import os
import signal
from threading import Thread
from time import monotonic, sleep
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

logger = logging.getLogger(__name__)

#: Interval of hard limit checks, and the longest of soft limit checks, in seconds.
CHECK_INTERVAL = 1.0
#: Shortest alarm, in seconds: a shorter one would fire while the last is being handled.
MIN_ALARM = 0.01


class TimeLimits:
    """Raises SoftTimeLimitExceeded in a job by SIGALRM; kills the process at the hard limit.

    A pool process killed by Celery loses one job. This process loses all that it holds: other
    workers reclaim them, and a job that has killed several workers is dead-lettered.
    """

    def __init__(self) -> None:
        #: Interval of soft limit checks, in seconds.
        self._interval = CHECK_INTERVAL
        #: The running job: its id, start time, soft and hard limit.
        self._job: tuple[str, float, float | None, float | None] | None = None
        self._watch: Thread | None = None

    def arm(self, min_limit: float) -> None:
        """Enforce limits from now on; `min_limit` is the shortest soft limit, in seconds.

        Must be called in the main thread.
        """
        self._interval = min(max(min_limit, MIN_ALARM), CHECK_INTERVAL)
        if self._watch is None:
            signal.signal(signal.SIGALRM, self._on_alarm)
            self._watch = Thread(target=self._watch_hard_limit, name="time limits", daemon=True)
            self._watch.start()
        signal.setitimer(signal.ITIMER_REAL, self._interval)

    def disarm(self) -> None:
        """Stop the alarms until `arm` is called again."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def is_busy(self) -> bool:
        """True while a job runs."""
        return self._job is not None

    def begin(self, job_id: str, soft: float | None, hard: float | None) -> None:
        """Record the start of a job and its limits in seconds; None or 0 means no limit."""
        self._job = (job_id, monotonic(), soft, hard)

    def end(self) -> None:
        """Record the end of the job."""
        self._job = None

    def _on_alarm(self, number: int, frame: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._interval)
        if self._job is None:
            return
        job_id, began, soft, hard = self._job
        left = began + soft - monotonic() if soft else self._interval
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, min(max(left, MIN_ALARM), self._interval))
            return
        self._job = (job_id, began, None, hard)  # raise only once per job
        logger.warning("Soft time limit (%ss) exceeded for job %s", soft, job_id)
        raise SoftTimeLimitExceeded

    def _watch_hard_limit(self) -> None:
        """Kill the process if a job exceeds its hard limit."""
        while True:
            sleep(CHECK_INTERVAL)
            job = self._job
            if job and job[3] and monotonic() - job[1] > job[3]:
                logger.critical("Hard time limit (%ss) exceeded for job %s", job[3], job[0])
                os.kill(os.getpid(), signal.SIGKILL)
