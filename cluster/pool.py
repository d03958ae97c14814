"""The worker's pool of processes: Celery's, which looks at every hard time limit."""

from typing import Any

from billiard import pool as billiard_pool
from celery.concurrency import asynpool, prefork

# A process of the pool that ends waits until its results were read, 30 s long by default; where
# the main process stops under load it reads none any more. What was not read is not
# acknowledged: another worker is given the job, and finds its result. In tenths of a second:
billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 10


class Pool(asynpool.AsynPool):
    """A pool where a hard time limit below the soft one holds.

    Celery's begins to count the hard limit when the soft one has passed, so a job with
    a hard limit of its own of 1 s ran on until the cluster's soft limit, 110 s.
    """

    on_timeout_set: Any

    def _create_timelimit_handlers(self, hub: Any) -> None:
        super()._create_timelimit_handlers(hub)  # type: ignore[misc]  # the stubs leave it out
        set_timers = self.on_timeout_set

        def on_timeout_set(job: Any, soft: Any, hard: Any) -> None:
            soft, hard = _seconds(soft), _seconds(hard)
            set_timers(job, None if soft and hard and soft >= hard else soft, hard)

        self.on_timeout_set = on_timeout_set


def _seconds(limit: Any) -> float | None:
    """Return a time limit, or None for what is none: it would end the worker, and the next one."""
    return limit if isinstance(limit, int | float) and limit > 0 else None


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool, on the one above."""

    Pool = Pool
