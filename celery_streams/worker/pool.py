"""A pool whose processes fetch the jobs that they run; this is the main process' side of it."""

import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from billiard.common import TERM_SIGNAL, human_status
from celery.concurrency import prefork
from celery.concurrency.base import BasePool
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from celery_streams.transport import keys
from celery_streams.transport.lease import Lease
from celery_streams.transport.transport import Transport
from celery_streams.worker.child import GRACE, Child
from celery_streams.worker.events import sends_events
from celery_streams.worker.rate_limits import ParkedJobs
from celery_streams.worker.remains import Remains
from celery_streams.worker.running import RunningJobs
from celery_streams.worker.scoreboard import MAX_PROCESSES, Running, Scoreboard
from celery_streams.worker.turns import MAX_POLLS, Turns

logger = logging.getLogger(__name__)

#: Seconds between two looks at the processes.
INTERVAL = 0.1
#: Seconds between two looks at how many workers there are.
COUNT_INTERVAL = 5.0
#: Seconds that a job may run before the rest of its fetch is released to other processes.
LONG_JOB = 0.1
#: Time-outs of a question to the server that a worker does not depend on, in seconds.
_BRIEFLY = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
#: Seconds in which a process that waits for messages asks again, where it does not take turns.
LEAD_SECONDS = 5.0
#: Connections that a process takes at least: two to fetch, one to store results, one for events.
CONNECTIONS = 4
#: Seconds that a process lives at least, or the next one is started as much later: one that ends
#: before it fetches.
MIN_LIFE = 1.0


class TaskPool(BasePool):
    """Processes that fetch jobs, run them, and ack them with the next fetch.

    For another broker, or another start method than fork, it is Celery's prefork pool.
    """

    signal_safe = False

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Return a pool for the broker of an app."""
        broker = options["app"].connection_for_read().transport
        if isinstance(broker, Transport) and options.get("forking_enable", True):
            return super().__new__(cls)
        return prefork.TaskPool(*args, **options)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: The worker's consumer, and the jobs as its connection shows them; the consumer sets them.
        self.consumer: Any = None
        self.jobs: RunningJobs | None = None
        self.scoreboard: Any = None
        #: How many jobs of each task the processes have run that have ended.
        self._former_totals: Counter[str] = Counter()
        #: The name by which the processes fetch.
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.turns = Turns()
        self._children: list[Child] = []
        self._lease: Lease | None = None
        self._size = 0
        self.main_pid = os.getpid()
        #: When the next process may start.
        self._next_start = 0.0
        self._remains = Remains(self)
        self.parked = ParkedJobs()
        #: Whether the jobs that run are ended: the worker stops at once.
        self.is_cold = False

    # Celery's interface ------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the processes."""
        if obstacle := _obstacle(self.consumer, self.limit):
            logger.critical("the worker ends: %s", obstacle)
            raise SystemExit(1)
        self.scoreboard = Scoreboard(sorted(self.app.tasks))
        self._size = int(self.limit)
        self._fill()

    def on_close(self) -> None:
        """Let the processes end after their jobs."""
        self._size = 0
        for child in self._children:
            child.stop()

    def on_stop(self) -> None:
        """Wait for them, and release what is left."""
        self.on_close()
        while any(child.is_alive for child in self._children):
            self.parked.read()  # a process may wait for room in the pipe
            self.maintain_pool()
            sleep(INTERVAL / 10)
        self.maintain_pool()
        if self._lease:
            self._lease.end()
        jobs, self.jobs = self.jobs, None
        if jobs:
            channel = jobs.channel
            with suppress(OSError, RedisError):  # or their lease expires
                channel.deliveries.flush()
                channel.queues.release_all(self.name, channel.deliveries.streams, ())

    def on_terminate(self) -> None:
        """End the processes, and release their jobs."""
        self._size, self._remains.releases_jobs = 0, True
        for number, seconds in ((TERM_SIGNAL, GRACE), (signal.SIGKILL, 0)):
            for child in self._children:
                child.kill(number)
            sleep(seconds)
        self.on_stop()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Send a signal to the process of a job."""
        for child in self._children:
            if child.pid == pid and not self.is_cold:  # then all are ended, at the next look
                child.terminate_job(signal or TERM_SIGNAL)

    def grow(self, n: int = 1) -> None:
        """Add processes; raises ValueError."""
        if self._size + n > MAX_PROCESSES:
            raise ValueError(f"a pool has at most {MAX_PROCESSES} processes")
        self._size += n
        self._fill()

    def shrink(self, n: int = 1) -> None:
        """Remove processes, idle ones first; raises ValueError."""
        if n > self._size:
            raise ValueError(f"a pool of {self._size} processes cannot shrink by {n}")
        self._size -= n
        staying = [child for child in self._children if not child.slot.fields.stops]
        for child in sorted(staying, key=lambda each: each.slot.running is not None)[:n]:
            child.stop()

    def restart(self) -> None:
        """Replace the processes, each after its job."""
        for child in self._children:
            child.stop()

    @property
    def num_processes(self) -> int:
        """The number of processes."""
        return self._size

    def register_with_event_loop(self, loop: Any) -> None:
        """Look after the processes from the worker's event loop."""
        loop.add_reader(self.parked.reader, self._hold_parked)
        loop.call_repeatedly(INTERVAL, self.maintain_pool)
        loop.call_repeatedly(COUNT_INTERVAL, self._count_consumers)
        if scaler := self.consumer.controller.autoscaler:
            loop.call_repeatedly(1.0, scaler.maybe_scale)

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),  # type: ignore[misc]  # not in the stubs
            "max-concurrency": self._size,
            "processes": [child.pid for child in self._children],
            "max-tasks-per-child": self.options.get("maxtasksperchild") or "N/A",
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
        }

    def open(self) -> None:
        """Let the processes fetch: the worker is ready."""
        if not self.turns.is_open and self.jobs:
            self.jobs.channel.maintenance.run()  # it reads the server's clock
            self._tell()
            self.turns.open()

    # What it knows -----------------------------------------------------------------------

    def running(self) -> Iterator[tuple[int, Running]]:
        """Yield the jobs that run, each after its process' id."""
        for child in self._children:
            if running := child.slot.running:
                yield child.pid, running

    def kept(self, pid: int) -> bytes:
        """Return the message of a process' job, if it may have been acked already."""
        return b"".join(child.slot.kept for child in self._children if child.pid == pid)

    def totals(self) -> Counter[str]:
        """Return how many jobs of each task the processes have run."""
        totals = Counter(self._former_totals)
        for child in self._children:
            totals.update(child.slot.totals)
        return +totals

    def is_fetching(self, seconds: float) -> bool:
        """Return True if a process fetched in the last seconds, or all of them run jobs."""
        busy = sum(1 for _ in self.running())
        if busy == len(self._children):
            return bool(busy) or not self._size
        fetched = max(child.slot.fields.fetched for child in self._children)
        return bool(monotonic() - fetched < seconds)

    @property
    def sends_events(self) -> bool:
        """Whether the processes send events of their jobs."""
        dispatcher = self.consumer.event_dispatcher
        if dispatcher is None:  # the worker is starting
            return bool(self.consumer.controller.task_events)
        return sends_events(dispatcher)

    # Leases ------------------------------------------------------------------------------

    def connected(self, jobs: RunningJobs) -> None:
        """Look after the jobs by a new connection, renew their leases, maintain the queues."""
        if self.jobs:
            self.jobs.forget_all()
        self.jobs = jobs
        for tag in [*self.parked.tags]:  # since before the last connection was lost
            self.consumer.call_soon(jobs.hold, tag)
        channel = jobs.channel
        channel.fetches = False
        channel.deliveries.hand_over(self.name)
        if self._lease is None:
            client = channel.deliveries.new_client()
            self._lease = Lease(client, self.name, channel.lease, self._held)
            self._lease.start()

    def _held(self) -> list[str]:
        tags = (tag for child in [*self._children] for tag in child.slot.tags)
        return [
            tag
            for tag in (*tags, *self.parked.tags.copy(), *self._remains.tags)
            if keys.is_tag(tag)
        ]

    def _count_consumers(self) -> None:
        """Tell the processes how many workers there are: they take turns waiting."""
        if self.jobs:
            channel = self.jobs.channel
            with suppress(OSError, RedisError):  # or the next time
                counts = map(channel.queues.consumers, channel.durable_queues())
                count = max(counts, default=0)
                self.scoreboard.facts.consumers = channel.maintenance.consumers = count

    def _tell(self) -> None:
        """Tell the processes what only the main process knows."""
        if self.jobs:
            facts = self.scoreboard.facts
            facts.clock_ahead = self.jobs.channel.maintenance.clock.ahead
            facts.is_full = self.parked.is_full
        clock: Any = self.app.clock
        self.scoreboard.facts.clock = clock.value = max(clock.value, self.scoreboard.facts.clock)

    def _hold_parked(self) -> None:
        tags = self.parked.read()
        self._tell()
        if self.jobs:  # or when the worker is connected again
            for tag in tags:
                self.jobs.hold(tag)

    # Supervision ---------------------------------------------------------------------------

    def _fill(self) -> None:
        staying = sum(child.is_alive and not child.slot.fields.stops for child in self._children)
        missing = min(self._size - staying, self.scoreboard.room)
        if monotonic() < self._next_start:
            return
        try:
            for _ in range(missing):
                self._children.append(Child(self))
        except OSError as error:  # no memory, or too many processes or files
            logger.error("cannot start a process: %s", error)  # noqa: TRY400
            self._next_start = monotonic() + MIN_LIFE

    def maintain_pool(self, *_: Any, **__: Any) -> None:
        """Replace processes that have ended, and enforce limits."""
        for child in [*self._children]:
            if child.is_alive:
                self._check_lead(child)
                self._check(child)
            else:
                self._bury(child)
        if self.jobs:
            self.jobs.forget_ended()
        self._tell()
        self._remains.release()
        self._fill()
        self.turns.heal(is_led=any(child.slot.fields.leads for child in self._children))

    def _check_lead(self, child: Child) -> None:
        """Have another process wait for messages if the one that does is stopped, or hangs."""
        fields = child.slot.fields
        seconds = LEAD_SECONDS + self.scoreboard.facts.consumers / MAX_POLLS
        is_late = fields.leads and monotonic() - fields.fetched > seconds
        if is_late and child.slot.stop_leading():
            self.turns.leadership.release()

    def _check(self, child: Child) -> None:
        running = child.slot.running
        if running is None:
            return
        seconds = monotonic() - running.started
        if self.is_cold or child.exceeded(running) or 0 < running.hard < seconds:
            child.end_job(running)
            return
        is_soft_due = bool(running.soft and seconds > running.soft)
        if is_soft_due and self.jobs and child.warned_for != running.started:
            child.warned_for = running.started
            self.jobs.warn(child.pid, running)
        if seconds > LONG_JOB and (is_soft_due or child.woken_for != running.started):
            child.woken_for = running.started
            self._remains.tags += child.slot.take_rest(LONG_JOB)
            if child.slot.stop_leading():
                self.turns.leadership.release()
            child.wake()
            if self.jobs:
                self.jobs.refresh()  # STARTED is stored for it

    def _bury(self, child: Child) -> None:
        """Replace a process that has ended, once its messages are let go of."""
        if child.slot.stop_leading():
            self.turns.leadership.release()
        fields, age = child.slot.fields, monotonic() - child.started
        if not fields.fetched and not fields.stops and age < MIN_LIFE and self.turns.is_open:
            self._next_start = child.started + MIN_LIFE
        with suppress(OSError, RedisError):  # or at the next look
            self._remains.take(child)
            child.close()
            if child not in self._children:  # a second signal to the worker has come meanwhile
                return
            self._children.remove(child)
            if child.exitcode and not self._remains.releases_jobs:
                name, status = child.process.name, human_status(child.exitcode)
                logger.error("Process %r pid:%r exited with %r", name, child.pid, status)
            self._former_totals.update(child.slot.totals)
            self.scoreboard.remove(child.slot)


def _obstacle(consumer: Any, processes: int) -> str:
    """Return why a worker cannot start this number of processes; empty if it can."""
    if consumer is None:
        return "worker_consumer has to be celery_streams:Consumer"
    most = max(processes, consumer.controller.max_concurrency or 0)
    if not 1 <= most <= MAX_PROCESSES:
        return f"the concurrency is 1 to {MAX_PROCESSES}, not {most}"
    return _lacks_connections(consumer.app, most)


def _lacks_connections(app: Any, processes: int) -> str:
    """Return that a server has too few connections; empty if it has enough, or does not say."""
    try:
        with app.connection_for_read() as connection:
            connection.transport_options = {**connection.transport_options, **_BRIEFLY}
            about = connection.channel().client.info("clients")
    except (OSError, RedisError, OperationalError):  # the consumer says so, and waits for it
        return ""
    most, used = about.get("maxclients", 0), about.get("connected_clients", 0)
    taken, left = processes * CONNECTIONS, max(most - used, 0)
    if not most or taken <= left:
        return ""
    return (
        f"{processes} processes take at least {taken} connections, and the server has "
        f"{left} of {most} left"
    )
