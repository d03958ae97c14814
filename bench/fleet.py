"""What many processes and many workers cost, and how a killed process is replaced.

Real workers, except where hundreds are idle: there, threads of one process do at Redis what the
main process and the waiting process of a worker do, by the same code.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from queue import Empty
from threading import Event, Thread
from time import monotonic, perf_counter, sleep
from typing import Any

from celery.events.receiver import EventReceiver
from celery.events.state import State

from bench.child import Child
from bench.conversation import Conversation
from bench.figures import Figure, Goal, Measured
from bench.processes import Session, memory
from bench.progress import Progress
from bench.servers import OwnServer
from bench.systems import OURS, System, named
from bench.turn import WARM_UP, started
from callers.client import Client
from celery_streams.transport import entries
from celery_streams.transport.channel import Channel
from celery_streams.worker.process import WAIT_SECONDS, turn_of

ROUNDS = 3
JOBS = 3000
#: Seconds that the last events may take.
MONITOR_SECONDS = 30.0
#: Processes of a worker whose jobs sleep for 5 ms, and jobs of each process.
PROCESSES, NAP, NAPS = (1, 2, 4, 8, 16, 32, 64), 0.005, 60
#: Share of the machine's CPU above which it is said to be full.
FULL = 0.85
#: Idle workers, and seconds for which they are watched.
IDLE, SECONDS = 300, 20.0
#: Workers that wait while jobs are submitted, and the jobs.
WAITING, SUBMITTED = 500, 1000
#: Seconds of the job whose process is killed.
LONG = 1.0
#: Seconds between two of a worker's heartbeats: Celery's default.
HEARTBEAT = 2.0
QUEUE = "add"


def measure(server: OwnServer, progress: Progress) -> list[Figure]:
    """Return the figures of a fleet."""
    found: list[Figure] = []
    for part in (_monitored, _napping, _idle_workers, _waiting_workers, _memory, _killed):
        server.reset()
        progress.report(f"a fleet: {part.__name__.strip('_')}")
        for figure in part(server):
            progress.keep(f"{figure.name}: {figure.ratio:.2f}", figure=figure.as_json())
            found.append(figure)
    return found


@contextmanager
def _working(server: OwnServer, processes: int) -> Iterator[tuple[list[Session], Conversation]]:
    """Run a worker with this number of processes, and a client that is connected to it."""
    system = _of(processes)
    with (
        started(system, server) as workers,
        Conversation(system, server.variables(system), server.folder) as client,
    ):
        client.ask("ready", workers=1)
        client.ask("bulk", count=WARM_UP)
        yield workers, client


def _of(processes: int) -> System:
    return OURS._replace(variables=(("ADD_CONCURRENCY", str(processes)),))


# Monitoring ------------------------------------------------------------------------------


def _monitored(server: OwnServer) -> Iterator[Figure]:
    """Compare bulk with and without a program that receives all events, as Flower does."""
    alone, monitored = [], []
    with _working(server, 2) as (_, client):
        for _ in range(ROUNDS):
            alone.append(JOBS / client.ask("bulk", count=JOBS)["total"])
            with Child(_monitor, server.variables(OURS)) as monitor:
                monitor.receive()
                client.ask("bulk", count=WARM_UP)
                monitored.append(JOBS / client.ask("bulk", count=JOBS)["total"])
                monitor.send(WARM_UP + JOBS)
                monitor.receive()
    name = "in bulk with a monitor that receives all events, over without"
    ours, without = Measured.median(monitored), Measured.median(alone)
    yield Figure(name, "jobs/s", ours, without, 0.7, Goal.TIMES_AS_MUCH)


def _monitor(pipe: "Connection[Any, Any]", variables: dict[str, str]) -> None:
    """Receive events into Celery's state of the cluster, at last those of as many jobs as told."""
    os.environ.update(variables)
    with Client() as client:
        control: Any = client.app.control
        _tell(control.enable_events)
        state = State()
        with client.app.connection_for_read() as connection:
            receiver: Any = EventReceiver(
                connection, {"*": state.event}, app=client.app, routing_key="#"
            )
            with receiver.consumer_context(wakeup=True) as (own, _, _):
                jobs, deadline = 0, monotonic() + MONITOR_SECONDS
                while not state.event_count and monotonic() < deadline:
                    with suppress(TimeoutError):  # it hears of a heartbeat: it is subscribed
                        own.drain_events(timeout=0.2)
                pipe.send("ready")
                while not jobs or state.task_count < jobs:
                    if not jobs and pipe.poll():
                        jobs, deadline = pipe.recv(), monotonic() + MONITOR_SECONDS
                    if jobs and monotonic() > deadline:
                        raise AssertionError(f"events of {state.task_count} of {jobs} jobs came")
                    with suppress(TimeoutError):
                        own.drain_events(timeout=0.2)
        _tell(control.disable_events)
        pipe.send("all")


def _tell(command: Callable[..., Any]) -> None:
    """Give a remote control command until the worker has answered that it is done."""
    deadline = monotonic() + MONITOR_SECONDS
    while not command(reply=True, timeout=1):
        if monotonic() > deadline:
            raise AssertionError("the worker does not answer")


# Processes ---------------------------------------------------------------------------------


def _napping(server: OwnServer) -> Iterator[Figure]:
    """Compare jobs that sleep on many processes with those of one, until the cores are full."""
    one = 0.0
    for processes in PROCESSES:
        server.reset()
        with _working(server, processes) as (_, client):
            busy = _busy_seconds()
            began = monotonic()
            rate = (
                processes * NAPS / client.ask("naps", count=processes * NAPS, seconds=NAP)["total"]
            )
            share = (_busy_seconds() - busy) / (monotonic() - began) / (os.cpu_count() or 1)
        one = one or rate
        if share > FULL:
            break
        if processes > 1:
            name = f"jobs that sleep 5 ms on {processes} processes, over {processes} times one's"
            ideal = Measured.exactly(processes * one)
            yield Figure(name, "jobs/s", Measured.exactly(rate), ideal, 0.85, Goal.TIMES_AS_MUCH)


def _busy_seconds() -> float:
    """Return the CPU seconds of the whole machine."""
    with open("/proc/stat") as file:  # noqa: PTH123
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


# Idle workers --------------------------------------------------------------------------------


def _idle_workers(server: OwnServer) -> Iterator[Figure]:
    """Return the share of a core that Redis takes for idle workers."""
    with Child(_idle, server.variables(OURS), IDLE) as fleet:
        fleet.receive()
        sleep(2 * WAIT_SECONDS)
        before, began = server.cpu_seconds(), monotonic()
        sleep(SECONDS)
        share = 100 * (server.cpu_seconds() - before) / (monotonic() - began)
        fleet.send("stop")
        fleet.receive()
    name = f"Redis' CPU for {IDLE} idle workers, of a core"
    yield Figure(name, "%", Measured.exactly(share), Measured.exactly(100), 0.05)


def _waiting_workers(server: OwnServer) -> Iterator[Figure]:
    """Compare Redis' CPU time of a job that is submitted while many workers wait, or one."""
    taken = {count: _submitted(server, count) for count in (1, WAITING)}
    name = f"Redis' CPU of a job submitted while {WAITING} workers wait, over one"
    yield Figure(name, "ms", Measured.exactly(taken[WAITING]), Measured.exactly(taken[1]), 2.0)


def _submitted(server: OwnServer, workers: int) -> float:
    """Return the server's milliseconds for a job, beside what idle workers cost."""
    server.reset()
    with (
        Child(_idle, server.variables(OURS), workers) as fleet,
        Client(server.url, server.url) as client,
    ):
        fleet.receive()
        client.submit("add.tasks.add", 1, 1)
        sleep(2 * WAIT_SECONDS)
        seconds = SUBMITTED / 200
        idle = server.cpu_seconds()
        sleep(seconds)
        before = server.cpu_seconds()
        for _ in range(SUBMITTED):
            client.submit("add.tasks.add", 1, 1)
            sleep(seconds / SUBMITTED)
        taken = (server.cpu_seconds() - before) - (before - idle)
        sleep(WAIT_SECONDS)
        fleet.send("stop")
        if (ran := fleet.receive()) != SUBMITTED + 1 or taken <= 0:
            raise AssertionError(f"{ran} of {SUBMITTED + 1} jobs ran, in {taken} s of the server")
    return 1000 * taken / SUBMITTED


def _idle(pipe: "Connection[Any, Any]", variables: dict[str, str], count: int) -> None:
    """Stand in for a number of idle workers; send how many jobs they have run."""
    os.environ.update(variables)
    stop = Event()
    with Client() as client:
        workers = [_IdleWorker(client.app, number, count, stop) for number in range(count)]
        for worker in workers:
            worker.start()
        while not all(worker.has_fetched.wait(0.1) or worker.error for worker in workers):
            pass
        pipe.send("ready")
        pipe.recv()
        stop.set()
        for worker in workers:
            worker.join()
            if worker.error:
                raise worker.error
        pipe.send(sum(worker.jobs for worker in workers))


class _IdleWorker(Thread):
    """Does at Redis what one of `count` idle workers does, and acks the jobs it fetches."""

    def __init__(self, app: Any, number: int, count: int, stop: Event) -> None:
        super().__init__()
        self._app, self._number, self._count, self._stop_event = app, number, count, stop
        self.has_fetched = Event()
        self.jobs = 0
        self.error: Exception | None = None

    def run(self) -> None:
        """Work until told to stop."""
        try:
            with self._app.connection_for_write() as connection:
                beat = self._app.events.Dispatcher(connection, hostname=f"bench@{self._number}")
                self._work(beat)
        except Exception as error:  # noqa: BLE001 - raised in the main thread
            self.error = error

    def _work(self, beat: Any) -> None:
        with self._app.connection_for_read() as connection:
            channel: Channel = connection.channel()
            channel.deliveries.hand_over(f"bench:{self._number}:0")
            self._app.amqp.queues[QUEUE](channel).declare()
            channel.basic_consume(QUEUE, no_ack=False, callback=lambda _: None, consumer_tag="1")
            channel.client.connection = channel.client.connection_pool.get_connection()
            channel.maintenance.consumers = self._count
            next_beat = monotonic()
            while not self._stop_event.is_set():
                if monotonic() >= next_beat:
                    next_beat += HEARTBEAT
                    beat.send("worker-heartbeat", freq=HEARTBEAT)
                channel.maintenance.run()
                if channel.fetch.waits and not turn_of(self._count):
                    self._stop_event.wait(WAIT_SECONDS)
                    channel.fetch.waits = False
                self._fetch(channel)
            channel.deliveries.flush()

    def _fetch(self, channel: Channel) -> None:
        fetch, link = channel.fetch, channel.client.connection
        try:
            fetch.from_streams(link, channel.queues.streams(QUEUE), 1, WAIT_SECONDS)
            found = entries.fetched(fetch.read(link)[0])
        except Empty:  # acks alone were answered, or the server had no group yet
            return
        fetch.waits = not found
        for entry in found:
            channel.deliveries.ack_later(entry.tag)
        self.jobs += len(found)
        self.has_fetched.set()


# One worker ------------------------------------------------------------------------------------


def _memory(server: OwnServer) -> Iterator[Figure]:
    """Compare the memory of an idle worker of ten processes with stock prefork's."""
    (stock,) = named("celery-prefork")
    (line,) = stock.workers
    ten = tuple("--concurrency=10" if each.startswith("--concurrency") else each for each in line)
    taken = []
    for system in (_of(10), stock._replace(workers=(ten,))):
        server.reset()
        with (
            started(system, server) as workers,
            Conversation(system, server.variables(system), server.folder) as client,
        ):
            client.ask("ready", workers=1)
            client.ask("bulk", count=10 * WARM_UP)
            taken.append(memory(pid for worker in workers for pid in worker.pids)[0])
    ours, others = map(Measured.exactly, taken)
    name = "memory of an idle worker of 10 processes, stock prefork's over ours"
    yield Figure(name, "MB", ours, others, 1.0, Goal.TIMES_LESS)


def _killed(server: OwnServer) -> Iterator[Figure]:
    """Return the time until the job of a killed process begins elsewhere."""
    waits = []
    with _working(server, 2), Client(server.url, server.url) as client:
        for _ in range(ROUNDS):
            job = client.submit("add.tasks.longtime_add", 1, 1, LONG)
            pid = _process_of(client, job.id)
            killed = perf_counter()
            os.kill(pid, signal.SIGKILL)
            client.get(job)
            waits.append(1000 * (perf_counter() - killed - LONG))
            if waits[-1] <= 0:
                raise AssertionError("the job had ended before its process was killed")
    name = "until the job of a killed process begins elsewhere, of a second"
    yield Figure(name, "ms", Measured.median(waits), Measured.exactly(1000), 1.0)


def _process_of(client: Client, job_id: str) -> int:
    while True:
        for jobs in (client.app.control.inspect(timeout=0.1).active() or {}).values():
            for job in jobs:
                if job["id"] == job_id:
                    return int(job["worker_pid"])
