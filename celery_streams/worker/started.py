"""STARTED, stored only for tasks that have run for half a second, by a background thread.

Celery's `task_track_started` stores it before each job: as many writes as there are results, for
jobs most of which end before anyone asks.
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

#: Seconds that a job runs before STARTED is stored, and between two looks at the running jobs.
INTERVAL = 0.5
#: Seconds until a STARTED expires, for its worker may die, and after which it is stored again.
EXPIRES, RENEWED_AFTER = 60, 20.0
#: Seconds that Redis may take to answer, and of the pause after an error.
TIMEOUT, PAUSE = 5.0, 5.0
#: The states that STARTED replaces.
_NOT_ENDED = frozenset({PENDING, RETRY, STARTED})


class Started(bootsteps.StartStopStep):
    """Runs the watcher of a worker whose results are stored by `RedisBackend`."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self.enabled = isinstance(consumer.app.backend, RedisBackend)
        self._watcher: StartedWatcher | None = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Start the watcher."""
        self._watcher = StartedWatcher(consumer.app.backend, consumer.hostname)
        self._watcher.start()

    def stop(self, consumer: Any) -> None:
        """Stop the watcher."""
        if self._watcher:
            self._watcher.end()

    shutdown = stop


class StartedWatcher(Thread):
    """A thread, for a pool may keep the main one busy for as long as a job runs."""

    def __init__(self, backend: RedisBackend, hostname: str) -> None:
        super().__init__(name="started", daemon=True)
        self._backend = backend
        self._hostname = hostname
        self._ended = Event()
        #: When STARTED was stored, by the job's id.
        self._stored: dict[str, float] = {}
        # Connections of its own: pool processes may inherit the main thread's at any time.
        limits = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
        pool: Any = backend._get_pool(**{**backend.connparams, **limits})  # noqa: SLF001
        self._client = Redis(connection_pool=pool)

    def run(self) -> None:
        """Look at the running jobs at intervals."""
        pause = INTERVAL
        while not self._ended.wait(pause):
            pause = INTERVAL
            try:
                self._look(time())
            except (OSError, RedisError) as error:
                logger.debug("cannot store that jobs run: %s", error)
                pause = PAUSE
            except RuntimeError:  # a job started or ended during the iteration
                continue
        self._client.connection_pool.disconnect()

    def end(self) -> None:
        """Stop."""
        self._ended.set()

    def _look(self, now: float) -> None:
        running = {request.id: request for request in list(state.active_requests)}
        self._stored = {job: when for job, when in self._stored.items() if job in running}
        for job, request in running.items():
            began = request.time_start
            if began is None or request.ignore_result or now - began < INTERVAL:
                continue
            if now - self._stored.get(job, 0) >= RENEWED_AFTER:
                self._store(job, request)
                self._stored[job] = now

    def _store(self, job: str, request: Any) -> None:
        where = {"pid": request.worker_pid, "hostname": self._hostname}
        context = request._context  # noqa: SLF001 - as Celery stores its other states
        payload = self._backend.payload(job, where, STARTED, request=context)
        transition = Transition(STARTED, only=_NOT_ENDED)
        self._backend.write(job, payload, EXPIRES, context, transition, self._client)
