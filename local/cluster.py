"""The local cluster: start its processes in order, restart those that end, and stop them."""

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

#: The families; each has the name of its queue.
FAMILIES = tuple(task_queues)
#: Workers of one family on one machine.
MAX_REPLICAS = 100
#: Time limit for workers to start consuming, in seconds.
READY_TIMEOUT = 30.0
#: Time that a stop waits for running jobs, in seconds: longer than any may run.
STOP_TIMEOUT = task_time_limit + 10.0
#: Interval between checks of the processes, in seconds.
POLL_INTERVAL = 0.05
#: Delay before a process that ended is restarted, in seconds.
RESTART_DELAY = 1.0


class Cluster:
    """A server, its workers and the callers that use them, as child processes.

    A child that ends is restarted, as in the compose stack, except a worker that `kill-workers`
    stopped. The server is the broker, the result backend or both: whichever no URL names.
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
        # The default file is found without the variable, which would override URLs' passwords.
        if password_file != password.DEFAULT:
            self.env[password.VARIABLE] = str(password_file.resolve())
        self._server: Process | None = None
        self._workers: list[Process] = []
        self._callers: list[Process] = []
        self._ended_at: dict[Process, float] = {}
        self._stop_requests = 0

    # Start ---------------------------------------------------------------------

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self._server = server.start(
            self.port, self.password_file, self.state.data, lambda: self.stop_requested
        )
        self.state.add("server", self._server.pid)

    def start_workers(self, replicas: Mapping[str, int]) -> None:
        """Start the given number of workers of each family and wait until they consume.

        Raise ServerError if one ends, or does not consume within READY_TIMEOUT.
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
        # `local worker` names its own heartbeat file, because the name contains the process id.
        argv = [sys.executable, "-m", "local", "worker", family]
        env = {**self.env, "LOCAL_STATE": str(self.state.folder)}
        return Process(family, argv, env)

    def _is_ready(self, worker: Process) -> bool:
        return self.state.heartbeat(worker.name, worker.pid).exists()

    # Run -----------------------------------------------------------------------

    def call(self, *argv: str, draws: bool = False) -> Process:
        """Run a caller until it ends or a stop is requested."""
        show("caller", f"$ python -m {' '.join(argv)}")
        caller = Process("caller", [sys.executable, "-m", *argv], self.env, draws=draws)
        self._callers.append(caller)
        while not caller.wait(POLL_INTERVAL) and not self.stop_requested:
            self._restart_ended()
        return caller

    def run_until_stopped(self) -> None:
        """Keep everything running until a stop is requested."""
        while not self._pause():
            self._restart_ended()

    def _restart_ended(self) -> None:
        if self._server and self._restart_is_due(self._server):
            self.state.remove("server", self._server.pid)
            self.start_server()
        for index, worker in enumerate(self._workers):
            if self._restart_is_due(worker) and not self.state.was_stopped(worker.pid):
                self.state.remove(worker.name, worker.pid)
                self._workers[index] = self._start_worker(worker.name)

    def _restart_is_due(self, process: Process) -> bool:
        if process.exit_status is None:
            return False
        if process not in self._ended_at:
            show(process.name, f"ended with status {process.exit_status}")
            self._ended_at[process] = monotonic()
        return monotonic() - self._ended_at[process] > RESTART_DELAY

    # Stop ----------------------------------------------------------------------

    def request_stop(self, *_: object) -> None:
        """Request a stop; a second request ends the wait for running jobs."""
        # A counter, because setting an Event in a signal handler deadlocks if the interrupted
        # thread is waiting for it.
        self._stop_requests += 1

    def _pause(self) -> bool:
        """Sleep for POLL_INTERVAL unless a stop is requested; return True if it is."""
        if not self.stop_requested:
            sleep(POLL_INTERVAL)
        return self.stop_requested

    @property
    def stop_requested(self) -> bool:
        """Whether a signal has requested a stop."""
        return self._stop_requests > 0

    def stop(self) -> None:
        """Stop the callers, then the workers, which finish their running jobs, then the server."""
        # SIGINT lets a caller restore the terminal; Ctrl-C itself does not reach its session.
        self._end(self._callers, signal.SIGINT, timeout=2)
        self._end(self._workers, signal.SIGTERM, timeout=STOP_TIMEOUT)
        if self._server:
            self._end([self._server], signal.SIGTERM, timeout=STOP_TIMEOUT, can_hurry=False)
            self.state.remove("server", self._server.pid)

    def _end(
        self,
        processes: Sequence[Process],
        first_signal: int,
        timeout: float,
        *,
        can_hurry: bool = True,
    ) -> None:
        for number, seconds in (
            (first_signal, timeout),
            (signal.SIGQUIT, 5),
            (signal.SIGKILL, 5),
        ):
            left = [process for process in processes if process.exit_status is None]
            for process in left:
                if number == signal.SIGKILL:
                    show(process.name, "did not stop: killed")
                process.signal(number)
            self._wait_for(left, seconds, can_hurry=can_hurry and number == first_signal)
        for process in processes:
            self.state.remove(process.name, process.pid)

    def _wait_for(self, processes: Sequence[Process], seconds: float, *, can_hurry: bool) -> None:
        """Wait for processes to end; if `can_hurry`, only until a second stop request."""
        deadline = monotonic() + seconds
        for process in processes:
            while not process.wait(POLL_INTERVAL):
                if monotonic() > deadline or (can_hurry and self._stop_requests > 1):
                    break


def replicas() -> dict[str, int]:
    """Return the number of workers of each family: <FAMILY>_REPLICAS, 1 if unset."""
    return {
        family: settings.integer(f"{family.upper()}_REPLICAS", 1, maximum=MAX_REPLICAS)
        for family in FAMILIES
    }


def run_and_stop(cluster: Cluster, program: Callable[[Cluster], int]) -> int:
    """Run `program`, then stop the cluster; return the program's status. Signals request a stop."""
    with ExitStack() as at_exit:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            previous = signal.signal(number, cluster.request_stop)
            at_exit.callback(signal.signal, number, previous)
        at_exit.callback(cluster.stop)
        return program(cluster)
