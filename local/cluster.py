"""The local cluster: what it starts, in which order, and how it ends."""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

from celeryconfig import task_queues, task_time_limit
from cluster import password, settings
from local import server
from local.process import Process, show
from local.state import State

#: The families, each named as its queue is.
FAMILIES = tuple(task_queues)
#: Workers of a family on one machine.
MOST_REPLICAS = 100
#: Seconds a worker may take until it consumes.
READY_TIMEOUT = 30.0
#: Seconds a stop waits for running jobs: longer than any may run.
STOP_TIMEOUT = task_time_limit + 10.0
#: Seconds between two looks at what runs.
INTERVAL = 0.05
#: Seconds before a process that died is started again.
RESTART_DELAY = 1.0


class Cluster:
    """A server, its workers and the callers that run against them, as child processes.

    A child that ends is started again, as in the compose stack, but for a worker that
    `kill-workers` has stopped. The server is for what no URL names: broker, results or both.
    """

    def __init__(
        self,
        state: State,
        port: int,
        password_file: Path,
        broker: str = "",
        backend: str = "",
        **variables: str,
    ) -> None:
        self.state = state
        self.port = port
        self.password_file = password_file
        self.broker = broker
        self.needs_server = not (broker and backend)
        url = f"redis://127.0.0.1:{port}/0"
        self.env = {
            **os.environ,
            "CELERY_BROKER_URL": broker or url,
            "CELERY_RESULT_BACKEND": backend or url,
            "PYTHONPATH": str(server.ROOT),
            "PYTHONUNBUFFERED": "1",
            **variables,
        }
        # The project's own file is found without: named, it would win over other URLs' passwords.
        if password_file != password.DEFAULT:
            self.env[password.VARIABLE] = str(password_file.resolve())
        self._server: Process | None = None
        self._workers: list[Process] = []
        self._callers: list[Process] = []
        self._died: dict[Process, float] = {}
        self._stop_requests = 0

    # Start ---------------------------------------------------------------------

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self._server = server.start(
            self.port, self.password_file, self.state.data, lambda: self.stop_requested
        )
        self.state.add("server", self._server.pid)

    def start_workers(self, replicas: Mapping[str, int]) -> None:
        """Start that many workers of each family and wait until they consume.

        Raises ServerError if one ends, or does not within READY_TIMEOUT.
        """
        for family, count in replicas.items():
            for _ in range(count):
                if self.stop_requested:
                    return
                self._workers.append(self._start_worker(family))
        deadline = monotonic() + READY_TIMEOUT
        while not self._pause():
            waiting = [worker for worker in self._workers if not self._is_ready(worker)]
            if not waiting:
                return
            for worker in waiting:
                if worker.exit_status is not None:
                    raise server.ServerError(f"the {worker.name} worker did not start")
            if monotonic() > deadline:
                names = ", ".join(worker.name for worker in waiting)
                raise server.ServerError(f"not ready after {READY_TIMEOUT:g} s: {names}")

    def _start_worker(self, family: str) -> Process:
        # The heartbeat's name holds the process id, which is known only to the process.
        argv = [sys.executable, "-m", "local", "worker", family]
        env = {**self.env, "LOCAL_STATE": str(self.state.folder)}
        return Process(family, argv, env)

    def _is_ready(self, worker: Process) -> bool:
        return self.state.heartbeat(worker.name, worker.pid).exists()

    # Run -----------------------------------------------------------------------

    def call(self, *argv: str, draws: bool = False) -> Process:
        """Run a caller to its end, or until a stop is requested."""
        show("caller", f"$ python -m {' '.join(argv)}")
        caller = Process("caller", [sys.executable, "-m", *argv], self.env, draws=draws)
        self._callers.append(caller)
        while not caller.wait(INTERVAL) and not self.stop_requested:
            self._restart_the_dead()
        return caller

    def run_until_stopped(self) -> None:
        """Keep everything running until a stop is requested."""
        while not self._pause():
            self._restart_the_dead()

    def _restart_the_dead(self) -> None:
        if self._server and self._restart_is_due(self._server):
            self.state.remove("server", self._server.pid)
            self.start_server()
        for place, worker in enumerate(self._workers):
            if self._restart_is_due(worker) and not self.state.was_stopped(worker.pid):
                self.state.remove(worker.name, worker.pid)
                self._workers[place] = self._start_worker(worker.name)

    def _restart_is_due(self, process: Process) -> bool:
        if process.exit_status is None:
            return False
        if process not in self._died:
            show(process.name, f"ended with status {process.exit_status}")
            self._died[process] = monotonic()
        return monotonic() - self._died[process] > RESTART_DELAY

    # Stop ----------------------------------------------------------------------

    def request_stop(self, *_: object) -> None:
        """Ask for the stop; ask twice, and running jobs are not waited for."""
        # A number and no Event: a signal that comes while an Event is waited for would lock
        # itself out, and the cluster would never stop.
        self._stop_requests += 1

    def _pause(self) -> bool:
        """Wait for an interval, or not at all if a stop is requested; tell whether it is."""
        if not self.stop_requested:
            sleep(INTERVAL)
        return self.stop_requested

    @property
    def stop_requested(self) -> bool:
        """Whether a signal asked for the stop."""
        return self._stop_requests > 0

    def stop(self) -> None:
        """Stop callers, then workers, which finish what they run, then the server."""
        # A caller leaves the terminal in order on Ctrl-C, which reaches it this way alone.
        self._end(self._callers, signal.SIGINT, patience=2)
        self._end(self._workers, signal.SIGTERM, patience=STOP_TIMEOUT)
        if self._server:
            self._end([self._server], signal.SIGTERM, patience=STOP_TIMEOUT, can_hurry=False)
            self.state.remove("server", self._server.pid)

    def _end(
        self,
        processes: Sequence[Process],
        first: int,
        patience: float,
        *,
        can_hurry: bool = True,
    ) -> None:
        for number, seconds in (
            (first, patience),
            (signal.SIGQUIT, 5),
            (signal.SIGKILL, 5),
        ):
            left = [process for process in processes if process.exit_status is None]
            for process in left:
                if number == signal.SIGKILL:
                    show(process.name, "does not end: killed")
                process.signal(number)
            self._wait_for(left, seconds, can_hurry=can_hurry and number == first)
        for process in processes:
            self.state.remove(process.name, process.pid)

    def _wait_for(self, processes: Sequence[Process], seconds: float, *, can_hurry: bool) -> None:
        """Wait for the end of processes: if it can hurry, until the stop is asked for twice."""
        deadline = monotonic() + seconds
        for process in processes:
            while not process.wait(INTERVAL):
                if monotonic() > deadline or (can_hurry and self._stop_requests > 1):
                    break


def replicas() -> dict[str, int]:
    """Return how many workers each family has: <FAMILY>_REPLICAS, 1 if unset."""
    return {
        family: settings.integer(f"{family.upper()}_REPLICAS", 1, most=MOST_REPLICAS)
        for family in FAMILIES
    }


def running(cluster: Cluster, job: Callable[[Cluster], int]) -> int:
    """Run `job` while the signals of a person ask for the stop, then stop; return its status."""
    with ExitStack() as at_exit:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.signal(number, cluster.request_stop)
            at_exit.callback(signal.signal, number, before)
        at_exit.callback(cluster.stop)
        return job(cluster)
