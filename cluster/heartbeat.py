"""The worker's health: a heartbeat while it consumes, and a watchdog that ends a hung worker.

The heartbeat is the modification time of a file, so a health check needs neither Python nor the
broker. Compose restarts a container that has exited but not an unhealthy one, so a worker
exits if its event loop hangs.
"""

import logging
import os
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from celery import bootsteps
from celery.worker import state

from celery_streams.worker.pool import TaskPool
from cluster import settings

logger = logging.getLogger(__name__)

VARIABLE = "WORKER_HEARTBEAT_FILE"
#: Seconds between two heartbeats.
HEARTBEAT_INTERVAL = 2.0
#: Seconds after which a fetch without a reply counts as lost; a fetch blocks for one second.
FETCH_TIMEOUT = 10.0
#: Seconds between two checks of the watchdog. If one takes longer than the threshold, the process
#: was stopped or starved, and the time is not counted.
CHECK_INTERVAL = 1.0
STALL_THRESHOLD = 5.0


def hang_timeout() -> int:
    """Return WORKER_HANG_TIMEOUT in seconds; raise ValueError if it is invalid."""
    return settings.integer("WORKER_HANG_TIMEOUT", 60, maximum=settings.MAX_SECONDS, minimum=4)


class Heartbeat(bootsteps.StartStopStep):
    """Touches the file named by WORKER_HEARTBEAT_FILE, if any, while the worker consumes."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self._file = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
        self._timer: Any = None
        self._has_logged_error = False
        self._watchdog = Watchdog(consumer)
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Start the heartbeat: the consumer is connected and about to enter its loop."""
        consumer.timer.call_after(0, self._beat, (consumer,))
        self._timer = consumer.timer.call_repeatedly(HEARTBEAT_INTERVAL, self._beat, (consumer,))
        self._watchdog.arm()

    def stop(self, consumer: Any) -> None:
        """Stop the heartbeat: the consumer has lost its connection or is shutting down."""
        self._watchdog.disarm()
        if self._timer is not None:
            self._timer.cancel()

    def shutdown(self, consumer: Any) -> None:
        """Remove the file, so that a worker that has stopped is not taken for a hung one."""
        self.stop(consumer)
        if self._file:
            self._file.unlink(missing_ok=True)

    def _beat(self, consumer: Any) -> None:
        if _consumes(consumer):
            self._watchdog.beat()
            if self._file:
                self._touch(self._file)

    def _touch(self, file: Path) -> None:
        try:
            file.touch()
        except OSError as error:  # the worker runs on, although it looks unhealthy
            if not self._has_logged_error:
                logger.error("cannot write the heartbeat file: %s (%s)", error, VARIABLE)  # noqa: TRY400
            self._has_logged_error = True


class Watchdog:
    """Ends the process after WORKER_HANG_TIMEOUT seconds without a heartbeat.

    The messages that the worker held are reclaimed when their lease expires, as after a crash.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._timeout = hang_timeout()
        self._is_armed = Event()
        self._silent = 0.0
        self._thread: Thread | None = None

    def arm(self) -> None:
        """Start watching: heartbeats are due from now on."""
        self.beat()
        self._is_armed.set()
        if self._thread is None:
            self._thread = Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def disarm(self) -> None:
        """Stop watching: the connection is lost or the worker is shutting down."""
        self._is_armed.clear()

    def beat(self) -> None:
        """Reset the time without a heartbeat."""
        self._silent = 0.0

    def _watch(self) -> None:
        never = Event()
        while self._is_armed.wait():
            began = monotonic()
            never.wait(CHECK_INTERVAL)
            passed = monotonic() - began
            if passed < STALL_THRESHOLD and not self._runs_a_job():
                self._silent += passed
            if not self._is_armed.is_set() or self._silent <= self._timeout:
                continue
            if not self._broker_answers():
                self.beat()
                continue
            logger.critical("no heartbeat for %d s: the worker exits", self._timeout)
            logging.shutdown()
            os._exit(1)

    def _broker_answers(self) -> bool:
        """Return False if the broker is unreachable or slow: that explains a blocked loop."""
        began = monotonic()
        try:
            with self._consumer.app.connection_for_read() as connection:
                connection.connect()
        except Exception as error:  # noqa: BLE001 - any error means that it is not the worker's fault
            logger.warning("no heartbeat for %d s: broker unreachable: %s", self._timeout, error)
            return False
        return monotonic() - began < STALL_THRESHOLD

    def _runs_a_job(self) -> bool:
        """Return True if the main thread is running a job, which is not a hang."""
        is_solo = type(self._consumer.pool).__module__.endswith(".solo")
        return bool(is_solo and state.active_requests)


def _consumes(consumer: Any) -> bool:
    """Return True if the worker is waiting for jobs or holds as many as it may."""
    if isinstance(consumer.pool, TaskPool):
        return consumer.pool.is_fetching(FETCH_TIMEOUT)
    channel = consumer.task_consumer.channel
    sent_at = getattr(channel, "_brpop_sent_at", None)
    # Other transports push messages; RabbitMQ's heartbeats close a connection that went silent.
    if sent_at is None:
        return bool(consumer.connection and consumer.connection.connected)
    if not channel.active_queues or not channel.qos.can_consume():  # paused, or busy
        return True
    return bool(monotonic() - sent_at < FETCH_TIMEOUT)
