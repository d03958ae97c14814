"""A lease on every job that a worker holds, renewed for as long as the worker lives.

Kombu's Redis transport gives a job to another worker `visibility_timeout` seconds after
it was fetched, whether its worker still runs it or is dead. Renewing the time of fetch
lets that timeout be short, so that the jobs of a killed worker run elsewhere soon, and a
slow job is still run once. (kombu.transport.redis.QoS: the sorted set `unacked_index`.)
"""

import time
from typing import Any

from celery import bootsteps


class Lease(bootsteps.StartStopStep):
    """Renews the leases of the jobs this worker has fetched and not yet acknowledged."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self.timer: Any = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Renew four times in a visibility timeout, so that a missed one does no harm."""
        # RabbitMQ has no such timeout: it knows a dead worker by its connection.
        qos = getattr(consumer.task_consumer.channel, "qos", None)
        timeout = getattr(qos, "visibility_timeout", None)
        if timeout:
            self.timer = consumer.timer.call_repeatedly(timeout / 4, _renew, (qos,))

    def stop(self, consumer: Any) -> None:
        """Let the leases run out: another worker takes over what is left."""
        if self.timer is not None:
            self.timer.cancel()

    shutdown = stop


def _renew(qos: Any) -> None:
    held = set(qos._delivered) - set(qos._dirty)  # noqa: SLF001 - kombu has no other name
    if held:
        now = time.time()
        with qos.channel.conn_or_acquire() as client:
            # XX: a job that another worker took over in the meantime is not taken back.
            client.zadd(qos.unacked_index_key, dict.fromkeys(held, now), xx=True)
