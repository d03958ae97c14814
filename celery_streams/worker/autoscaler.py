"""Celery's autoscaler, for a pool whose processes fetch: what waits is in Redis."""

from time import monotonic
from typing import Any

from celery.worker import autoscale

from celery_streams.worker.pool import TaskPool


class Autoscaler(autoscale.Autoscaler):
    """Grows the pool while all its processes are busy and messages wait."""

    pool: Any
    worker: Any

    @property
    def qty(self) -> int:
        """How many processes have something to do, at most as many as there may be."""
        if not isinstance(self.pool, TaskPool):
            return int(super().qty)
        busy = sum(1 for _ in self.pool.running())
        if busy < self.processes:
            return busy
        self._last_task_received = monotonic()
        channel = self.worker.consumer.task_consumer.channel
        lengths = (channel.queues.lengths(queue).waiting for queue in channel.durable_queues())
        return int(min(busy + sum(lengths), self.max_concurrency))

    @property
    def processes(self) -> int:
        """How many processes there are."""
        return int(self.pool.num_processes)
