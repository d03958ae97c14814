"""The worker's health: a heartbeat while it is connected and consumes, and an end where it hangs.

The heartbeat is a file that is kept fresh: reading its age costs a health check neither a Python
start nor a question to the broker. Compose does not start an unhealthy container again, but one
that has ended: a worker whose event loop hangs ends itself.
"""

import logging
import os
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from celery import bootsteps
from celery.worker import state

from cluster import settings

logger = logging.getLogger(__name__)

VARIABLE = "WORKER_HEARTBEAT_FILE"
#: Seconds between two heartbeats.
INTERVAL = 2.0
#: Seconds after which an unanswered fetch is a dead one: kombu's block for one second each.
FETCH_TIMEOUT = 10.0
#: Seconds between two looks of the watchdog. A pause that is much longer was the whole process's,
#: which was stopped or starved, and is not counted.
LOOK_INTERVAL = 1.0
PAUSE = 5.0


def hang_timeout() -> int:
    """Return WORKER_HANG_TIMEOUT in seconds; raises ValueError if it is wrong."""
    return settings.integer("WORKER_HANG_TIMEOUT", 60, most=settings.MAX_SECONDS, least=4)


class Heartbeat(bootsteps.StartStopStep):
    """Notes that the worker consumes, in the file named by WORKER_HEARTBEAT_FILE, if any."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self._file = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
        self._timer: Any = None
        self._has_complained = False
        self._watchdog = Watchdog(consumer)
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Begin to beat: the consumer has just (re)connected, and its loop is about to run."""
        consumer.timer.call_after(0, self._beat, (consumer,))
        self._timer = consumer.timer.call_repeatedly(INTERVAL, self._beat, (consumer,))
        self._watchdog.arm()

    def stop(self, consumer: Any) -> None:
        """Stop beating: the consumer lost its connection, or ends."""
        self._watchdog.disarm()
        if self._timer is not None:
            self._timer.cancel()

    def shutdown(self, consumer: Any) -> None:
        """Remove the file: a worker that ended is not one that hangs."""
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
        except OSError as error:  # the worker is not to be blamed: it looks unhealthy, no more
            if not self._has_complained:
                logger.error("no heartbeat can be written: %s (%s)", error, VARIABLE)  # noqa: TRY400
            self._has_complained = True


class Watchdog:
    """Ends the process when no heartbeat has come for WORKER_HANG_TIMEOUT seconds.

    What the worker held comes back by its lease, as after any crash.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._timeout = hang_timeout()
        self._is_armed = Event()
        self._silent = 0.0
        self._thread: Thread | None = None

    def arm(self) -> None:
        """Expect heartbeats from now on."""
        self.beat()
        self._is_armed.set()
        if self._thread is None:
            self._thread = Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def disarm(self) -> None:
        """Expect none: the connection is lost, or the worker ends."""
        self._is_armed.clear()

    def beat(self) -> None:
        """Note a heartbeat."""
        self._silent = 0.0

    def _watch(self) -> None:
        never = Event()
        while self._is_armed.wait():
            began = monotonic()
            never.wait(LOOK_INTERVAL)
            passed = monotonic() - began
            if passed < PAUSE and not self._runs_a_job():
                self._silent += passed
            if not self._is_armed.is_set() or self._silent <= self._timeout:
                continue
            if not self._broker_answers():
                self.beat()
                continue
            logger.critical("no heartbeat for %d s: this worker ends itself", self._timeout)
            logging.shutdown()
            os._exit(1)

    def _broker_answers(self) -> bool:
        """Return False where the worker may well wait: for a broker that does not answer soon."""
        began = monotonic()
        try:
            with self._consumer.app.connection_for_read() as connection:
                connection.connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker cannot be blamed
            logger.warning("no heartbeat for %d s: the broker says %s", self._timeout, error)
            return False
        return monotonic() - began < PAUSE

    def _runs_a_job(self) -> bool:
        """Return True if the main thread runs a job, which may take as long as it likes."""
        is_solo = type(self._consumer.pool).__module__.endswith(".solo")
        limits_of_inline = getattr(self._consumer, "time_limits", None)
        is_inline = limits_of_inline is not None and limits_of_inline.is_busy
        return bool(is_inline or (is_solo and state.active_requests))


def _consumes(consumer: Any) -> bool:
    """Return True if jobs reach this worker: it waits for one, or holds all it may."""
    channel = consumer.task_consumer.channel
    sent_at = getattr(channel, "_brpop_sent_at", None)
    # Other transports than Redis push: being connected is all there is to see. RabbitMQ's
    # heartbeats end a connection that is silent.
    if sent_at is None:
        return bool(consumer.connection and consumer.connection.connected)
    if not channel.active_queues or not channel.qos.can_consume():  # paused, or busy
        return True
    return bool(monotonic() - sent_at < FETCH_TIMEOUT)
