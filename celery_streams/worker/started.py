"""Tells who asks that a job runs, and where, without a write for each quick job.

Celery's `task_track_started` stores STARTED before each job, as many writes as there are
results, to tell of jobs most of which are done by the time anybody asks.
"""

import logging
from threading import Event, Thread
from time import time
from typing import Any

from celery import bootsteps
from celery.states import PENDING, RETRY, STARTED
from celery.worker import state
from redis import Redis
from redis.exceptions import RedisError

from celery_streams.results.backend import RedisBackend
from celery_streams.results.states import Transition

logger = logging.getLogger(__name__)

#: Seconds that a job has to run before it is said to, and between two looks at those that run.
INTERVAL = 0.5
#: Seconds that it is said for, unless it is said again: its worker may have died, or its result
#: have been stored and forgotten just before.
EXPIRES, REPEATED_AFTER = 60, 20.0
#: Seconds that Redis may take to answer, and that it is left alone for where it does not.
TIMEOUT, PAUSE = 5.0, 5.0
#: What STARTED replaces.
_NOT_ENDED = frozenset({PENDING, RETRY, STARTED})


class Started(bootsteps.StartStopStep):
    """Stores STARTED for the jobs that this worker has been running for a while."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self.enabled = isinstance(consumer.app.backend, RedisBackend)
        self._watch: Watch | None = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Begin to look at what runs."""
        self._watch = Watch(consumer.app.backend, consumer.hostname)
        self._watch.start()

    def stop(self, consumer: Any) -> None:
        """Look no more; what still runs ends, or is another worker's."""
        if self._watch:
            self._watch.end()

    shutdown = stop


class Watch(Thread):
    """A thread: a pool may keep the main one busy for as long as a job takes."""

    def __init__(self, backend: Any, hostname: str) -> None:
        super().__init__(name="started", daemon=True)
        self._backend = backend
        self._hostname = hostname
        self._ended = Event()
        self._said: dict[str, float] = {}
        # Not the main thread's connections: pool processes are forked from it at any time.
        limits = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
        pool = backend._get_pool(**{**backend.connparams, **limits})  # noqa: SLF001
        self._client = Redis(connection_pool=pool)

    def run(self) -> None:
        """Look at what runs again and again."""
        pause = INTERVAL
        while not self._ended.wait(pause):
            pause = INTERVAL
            try:
                self._say(time())
            except (OSError, RedisError) as error:
                logger.debug("it was not stored that jobs run: %s", error)
                pause = PAUSE
            except RuntimeError:  # a job began or ended just as this looked
                continue
        self._client.connection_pool.disconnect()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _say(self, now: float) -> None:
        runs = {request.id: request for request in list(state.active_requests)}
        self._said = {job: when for job, when in self._said.items() if job in runs}
        for job, request in runs.items():
            began = request.time_start
            if began is None or request.ignore_result or now - began < INTERVAL:
                continue
            if now - self._said.get(job, 0) >= REPEATED_AFTER:
                self._store(job, request)
                self._said[job] = now

    def _store(self, job: str, request: Any) -> None:
        where = {"pid": request.worker_pid, "hostname": self._hostname}
        context = request._context  # noqa: SLF001 - as Celery stores its other states
        payload = self._backend.payload(job, where, STARTED, request=context)
        transition = Transition(STARTED, only=_NOT_ENDED)
        self._backend.write(job, payload, EXPIRES, context, transition, self._client)
