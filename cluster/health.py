"""The worker's heartbeat: a file that is fresh while the worker is connected and consumes.

Reading its age costs a health check neither a Python start nor a question to the broker.
"""

import os
from pathlib import Path
from time import monotonic
from typing import Any

from celery import bootsteps

VARIABLE = "WORKER_HEARTBEAT_FILE"
#: Seconds between two heartbeats.
INTERVAL = 2.0
#: Seconds after which an unanswered fetch is a dead one: kombu's block for one second each.
FETCH_TIMEOUT = 10.0


class Heartbeat(bootsteps.StartStopStep):
    """Keeps the file named by WORKER_HEARTBEAT_FILE fresh; does nothing where none is named."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self.enabled = bool(os.environ.get(VARIABLE))
        self.timer: Any = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Begin to beat: the consumer has just (re)connected, and its loop is about to run."""
        file = Path(os.environ[VARIABLE])
        consumer.timer.call_after(0, _beat, (consumer, file))
        self.timer = consumer.timer.call_repeatedly(INTERVAL, _beat, (consumer, file))

    def stop(self, consumer: Any) -> None:
        """Stop beating: the consumer lost its connection, or ends."""
        if self.timer is not None:
            self.timer.cancel()

    def shutdown(self, consumer: Any) -> None:
        """Remove the file: a worker that ended is not one that hangs."""
        self.stop(consumer)
        Path(os.environ[VARIABLE]).unlink(missing_ok=True)


def _beat(consumer: Any, file: Path) -> None:
    if _consumes(consumer):
        file.touch()


def _consumes(consumer: Any) -> bool:
    """Tell whether jobs reach this worker: it waits for one, or holds all it may."""
    channel = consumer.task_consumer.channel
    sent_at = getattr(channel, "_brpop_sent_at", None)
    # Other transports than Redis push: being connected is all there is to see. RabbitMQ's
    # heartbeats end a connection that is silent.
    if sent_at is None:
        return bool(consumer.connection and consumer.connection.connected)
    if not channel.qos.can_consume():
        return True
    return bool(monotonic() - sent_at < FETCH_TIMEOUT)
