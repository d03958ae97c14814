"""What many processes and many workers cost, and how a killed process is replaced.

Real workers, except where hundreds are idle (bench.idle).
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from time import monotonic, perf_counter, sleep
from typing import Any

import psutil
from celery.events.receiver import EventReceiver
from celery.events.state import State

from bench.figures import Figure, Goal, Measured
from bench.idle import IdleWorkers
from bench.load import busy_seconds
from bench.programs import Conversation, Program, memory
from bench.progress import report
from bench.servers import OwnServer
from bench.systems import OURS, WORKERS, System, named
from bench.turn import WARM_UP, running
from callers.client import Client
from celery_streams.worker.process import WAIT_SECONDS

ROUNDS = 3
JOBS = 3000
#: Seconds that a worker's answer, or the last events, may take.
MONITOR_TIMEOUT = 30.0
#: Processes of a worker whose jobs sleep for 5 ms, and jobs of each process.
PROCESSES, NAP, NAPS = (1, 2, 4, 8, 16, 32, 64), 0.005, 60
#: Share of the machine's CPU above which it is said to be full.
FULL = 0.85
#: Idle workers, and seconds for which they are watched.
IDLE, SECONDS = 300, 20.0
#: Workers that wait while jobs are submitted, the jobs, and the interval between two, in seconds.
WAITING, SUBMITTED, INTERVAL = 500, 1000, 0.005
#: Seconds of the job whose process is killed.
LONG = 1.0


def measure(server: OwnServer) -> list[Figure]:
    """Return the figures of a fleet."""
    found: list[Figure] = []
    for part in (_monitored, _napping, _idle_workers, _waiting_workers, _memory, _killed):
        server.reset()
        for figure in part(server):
            report(f"{figure.name}: {figure.ratio:.2f}")
            found.append(figure)
    return found


def _working(
    server: OwnServer, processes: int
) -> AbstractContextManager[tuple[list[Program], Conversation]]:
    """Run a worker with this number of processes, and a client."""
    return running(_of(processes), server, 1)


def _of(processes: int) -> System:
    return OURS._replace(variables=(("ADD_CONCURRENCY", str(processes)),))


def _monitored(server: OwnServer) -> Iterator[Figure]:
    """Compare bulk with and without a program that receives all events, as Flower does: this."""
    alone, monitored = [], []
    with _working(server, 2) as (_, client), Client(server.url, server.url) as monitor:
        for _ in range(ROUNDS):
            alone.append(JOBS / client.ask("in_bulk", count=JOBS))
            monitored.append(JOBS / _while_monitoring(client, monitor.app))
    name = "in bulk with a monitor that receives all events, over without"
    ours, without = Measured.median(monitored), Measured.median(alone)
    yield Figure(name, "jobs/s", ours, without, 0.7, Goal.TIMES_AS_MUCH)


def _while_monitoring(client: Conversation, app: Any) -> float:
    """Return the seconds of jobs in bulk, while their events are received."""
    state = State()
    with app.connection_for_read() as connection:
        receiver: Any = EventReceiver(connection, {"*": state.event}, app=app, routing_key="#")
        with receiver.consumer_context(wakeup=True) as (own, _, _):

            def receive(is_done: Callable[[], bool]) -> None:
                deadline = monotonic() + MONITOR_TIMEOUT
                while not is_done():
                    if monotonic() > deadline:
                        raise AssertionError(f"the events of {state.task_count} jobs came")
                    with suppress(TimeoutError):
                        own.drain_events(timeout=0.2)

            _tell(app.control.enable_events)
            receive(lambda: bool(state.event_count))  # it hears of a heartbeat: it is subscribed
            client.send("in_bulk", count=WARM_UP)
            receive(client.has_answered)
            client.answer()
            client.send("in_bulk", count=JOBS)
            receive(lambda: client.has_answered() and state.task_count >= WARM_UP + JOBS)
            seconds: float = client.answer()
    _tell(app.control.disable_events)
    return seconds


def _tell(command: Callable[..., Any]) -> None:
    """Give a remote control command until the worker has answered that it is done."""
    deadline = monotonic() + MONITOR_TIMEOUT
    while not command(reply=True, timeout=1):
        if monotonic() > deadline:
            raise AssertionError("the worker does not answer")


def _napping(server: OwnServer) -> Iterator[Figure]:
    """Compare jobs that sleep on many processes with those of one, until the cores are full."""
    one = 0.0
    for processes in PROCESSES:
        server.reset()
        count = processes * NAPS
        with _working(server, processes) as (_, client):
            busy, began = busy_seconds(), monotonic()
            rate = count / client.ask("naps", count=count, seconds=NAP)
            cores = (busy_seconds() - busy) / (monotonic() - began)
        one = one or rate
        if cores > FULL * (psutil.cpu_count() or 1):
            break
        if processes > 1:
            name = f"jobs that sleep 5 ms on {processes} processes, over {processes} times one's"
            ideal = Measured.exactly(processes * one)
            yield Figure(name, "jobs/s", Measured.exactly(rate), ideal, 0.85, Goal.TIMES_AS_MUCH)


def _idle_workers(server: OwnServer) -> Iterator[Figure]:
    """Return the share of a core that Redis takes for idle workers."""
    with IdleWorkers(server.url, IDLE):
        sleep(2 * WAIT_SECONDS)
        before, began = server.cpu_seconds(), monotonic()
        sleep(SECONDS)
        share = 100 * (server.cpu_seconds() - before) / (monotonic() - began)
    name = f"Redis' CPU for {IDLE} idle workers, of a core"
    yield Figure(name, "%", Measured.exactly(share), Measured.exactly(100), 0.05)


def _waiting_workers(server: OwnServer) -> Iterator[Figure]:
    """Compare Redis' CPU time of a job that is submitted while many workers wait, or one."""
    one, many = (Measured.exactly(_submitted(server, count)) for count in (1, WAITING))
    name = f"Redis' CPU of a job submitted while {WAITING} workers wait, over one"
    yield Figure(name, "ms", many, one, 2.0)


def _submitted(server: OwnServer, workers: int) -> float:
    """Return the server's milliseconds for a job, beside what idle workers cost."""
    server.reset()
    with (
        IdleWorkers(server.url, workers) as fleet,
        Client(server.url, server.url) as client,
    ):
        client.submit("add.tasks.add", 1, 1)
        sleep(2 * WAIT_SECONDS)
        idle = server.cpu_seconds()
        sleep(SUBMITTED * INTERVAL)
        before = server.cpu_seconds()
        for _ in range(SUBMITTED):
            client.submit("add.tasks.add", 1, 1)
            sleep(INTERVAL)
        taken = (server.cpu_seconds() - before) - (before - idle)
        sleep(WAIT_SECONDS)
        if (ran := fleet.stop()) != SUBMITTED + 1 or taken <= 0:
            raise AssertionError(f"{ran} of {SUBMITTED + 1} jobs ran, in {taken} s of the server")
    return 1000 * taken / SUBMITTED


def _memory(server: OwnServer) -> Iterator[Figure]:
    """Compare the memory of an idle worker of ten processes with stock prefork's."""
    (stock,) = named(["celery-prefork"])
    ten = stock.workers[0].replace(f"--concurrency={WORKERS}", "--concurrency=10")
    taken = []
    for system in (_of(10), stock._replace(workers=(ten,))):
        server.reset()
        with running(system, server, 1) as (workers, client):
            client.ask("in_bulk", count=10 * WARM_UP)
            taken.append(memory(process for worker in workers for process in worker.processes))
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
