"""The threads that wait: for which jobs, until when, and what they have not seen yet."""

import math
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

from celery.states import READY_STATES

from celery_streams.bundles import bundle_of

#: Seconds between reads of the key of a job that is not announced here; doubled from the first to
#: the second after each. The second is also the interval of tries to subscribe.
MIN_POLL, MAX_POLL = 0.005, 0.25


class ResultWaiter:
    """One thread that waits for a result, or a group's; without results, for any news."""

    def __init__(
        self,
        results: Iterable[Any] = (),
        deadline: float = math.inf,
        *,
        wants_news: bool = False,
    ) -> None:
        #: Results of jobs that have not ended, by their ids.
        self.open: dict[str, list[Any]] = {}
        #: Ids of jobs that ended.
        self.ended: deque[str] = deque()
        #: Intermediate states of jobs, and then the final one.
        self.news: deque[Any] = deque()
        self._wants_news = wants_news
        self._last_news: dict[str, Any] = {}
        for result in results:
            self.open.setdefault(result.id, []).append(result)
        self.is_for_any = not self.open
        self.woken = threading.Event()
        self.deadline = deadline
        #: When to read the jobs' keys, and the seconds until the next time.
        self.read_at, self.poll_interval = (0.0 if self.open else math.inf), MIN_POLL
        #: Why the keys could not be read the last time.
        self.error: Exception | None = None

    def next_poll(self) -> float:
        """Return the seconds until the next read of keys."""
        interval, self.poll_interval = self.poll_interval, min(2 * self.poll_interval, MAX_POLL)
        return interval

    def notify(self, job_id: str, meta: Any) -> None:
        """Note a job's state, and wake the thread."""
        if meta["status"] not in READY_STATES:
            if self._wants_news and self._last_news.get(job_id) != meta:
                self._last_news[job_id] = meta
                self.news.append(meta)
        elif self.open.pop(job_id, []):
            self.ended.append(job_id)
            if self._wants_news:
                self.news.append(meta)
        self.woken.set()


class BatchWaiter(ResultWaiter):
    """One thread that waits for many jobs of its own, without a result object for each.

    A call of a bundle that it waits for may end before the bundle, as a job of its own.
    `batches` maps the ids of all such jobs to their waiters.
    """

    #: What is known of jobs that ended.
    ended: deque[Any]

    def __init__(self, batches: dict[str, "BatchWaiter"], oid: str) -> None:
        super().__init__()
        self.is_for_any = False
        self._batches = batches
        #: Where the jobs' results have to be announced: their `reply_to`.
        self.oid = oid

    def expect(self, job_ids: Iterable[str]) -> None:
        """Wait for jobs that are about to be sent."""
        for job_id in job_ids:
            self._batches[job_id] = self
            self.open[job_id] = []

    def forget(self, job_ids: Iterable[str]) -> None:
        """Stop waiting for jobs."""
        for job_id in [*job_ids]:
            self._batches.pop(job_id, None)
            self.open.pop(job_id, None)

    def notify(self, job_id: str, meta: Any) -> None:
        """Note a job's state, and wake the thread if the job has ended."""
        if meta["status"] not in READY_STATES:
            return
        if self.open.pop(job_id, None) is not None or bundle_of(job_id) in self.open:
            self._batches.pop(job_id, None)
            self.ended.append(meta)
            if not self.woken.is_set():
                self.woken.set()


def batch_of(batches: dict[str, BatchWaiter], job_id: str) -> BatchWaiter | None:
    """Return who waits for a job of a batch, or for the bundle of which it is a call."""
    return batches.get(job_id) or batches.get(bundle_of(job_id))
