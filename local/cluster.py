"""The local cluster: start its processes in order, restart those that end, and stop them."""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

from celeryconfig import families, task_time_limit
from cluster import settings
from cluster.connections import password
from local import server
from local.process import POLL_INTERVAL, Process, end, show
from local.state import State

FAMILIES = tuple(families)
#: Workers of one family on one machine.
MAX_REPLICAS = 100
#: Time limit for workers to start consuming, in seconds.
READY_TIMEOUT = 30.0
#: Time that a stop waits for running jobs, in seconds: longer than any may run.
STOP_TIMEOUT = task_time_limit + 10.0
#: Time that `reload` waits for running jobs, in seconds.
RELOAD_TIMEOUT = 3.0
#: Delay before a process that ended is restarted, in seconds.
RESTART_DELAY = 1.0
#: Exit statuses of a worker that was stopped by SIGTERM: later, or before it had a handler.
STOPPED = (0, -signal.SIGTERM)


class Cluster:
    """A server, its workers and the callers that use them, as child processes.

    A child that dies is restarted, as in the compose stack; a worker that was stopped is not. The
    server is the broker, the result backend or both: whichever no URL names.
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
            "LOCAL_STATE": str(state.folder),
            "PYTHONPATH": str(server.ROOT),
            "PYTHONUNBUFFERED": "1",
            **variables,
        }
        # The default file is found without the variable, which would override URLs' passwords.
        if password_file != password.DEFAULT:
            self.env[password.VARIABLE] = str(password_file.resolve())
        self._server: list[Process] = []  # one, once it runs
        self._workers: list[Process] = []
        self._callers: list[Process] = []
        self._reloaded = ""
        self._stop_requests = 0

    # Start ---------------------------------------------------------------------

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        process = server.start(
            self.port, self.password_file, self.state.data, lambda: self.stop_requested
        )
        self._server = [process]
        self.state.add("server", process.pid)

    def start_workers(self, replicas: Mapping[str, int]) -> None:
        """Start the given number of workers of each family and wait until they consume.

        Raise ServerError if one ends, or does not consume within READY_TIMEOUT.
        """
        for family, count in replicas.items():
            for _ in range(count):
                self._start_worker(family)
        deadline = monotonic() + READY_TIMEOUT
        while waiting := [worker for worker in self._workers if not self._is_ready(worker)]:
            if self._pause(POLL_INTERVAL):
                return
            if ended := [worker for worker in waiting if worker.exit_status is not None]:
                raise server.ServerError(f"the {ended[0].name} worker did not start")
            if monotonic() > deadline:
                names = ", ".join(worker.name for worker in waiting)
                raise server.ServerError(f"not ready after {READY_TIMEOUT:g} s: {names}")

    def _is_ready(self, worker: Process) -> bool:
        return self.state.heartbeat(worker.name, worker.pid).exists()

    def _start_worker(self, family: str) -> None:
        # `local worker` names its own heartbeat file, because the name contains the process id.
        if not self.stop_requested:
            argv = [sys.executable, "-m", "local", "worker", family]
            self._workers.append(Process(family, argv, self.env))

    # Run -----------------------------------------------------------------------

    def call(self, *argv: str, draws: bool = False) -> Process:
        """Run a caller until it ends or a stop is requested."""
        show("caller", f"$ python -m {' '.join(argv)}")
        caller = Process("caller", [sys.executable, "-m", *argv], self.env, draws=draws)
        self._callers.append(caller)
        while not caller.wait(POLL_INTERVAL) and not self.stop_requested:
            self.restart_ended()
        return caller

    def run_until_stopped(self) -> None:
        """Keep everything running until a stop is requested."""
        while not self._pause(POLL_INTERVAL):
            self.restart_ended()

    def restart_ended(self) -> None:
        """Restart the server and the workers that have died, after RESTART_DELAY."""
        children = [*self._server, *self._workers]
        ended = [child for child in children if child.exit_status is not None]
        for child in ended:
            show(child.name, f"ended with status {child.exit_status}")
        self._workers = [worker for worker in self._workers if worker not in ended]
        if not ended or self._pause(RESTART_DELAY):
            return
        for child in ended:
            if child in self._server:
                self.start_server()
            elif child.name == self._reloaded and (child.exit_status or 0) > 0:
                show("local", f"the next change of its code starts {child.name} again")
            elif child.exit_status not in STOPPED:
                self._start_worker(child.name)

    def reload(self, family: str, count: int) -> None:
        """Replace a family's workers; jobs that run for more than RELOAD_TIMEOUT run again."""
        old = [worker for worker in self._workers if worker.name == family]
        self._workers = [worker for worker in self._workers if worker not in old]
        self._end(old, signal.SIGTERM, RELOAD_TIMEOUT)
        self._reloaded = family
        for _ in range(count):
            self._start_worker(family)

    # Stop ----------------------------------------------------------------------

    def request_stop(self, *_: object) -> None:
        """Request a stop; a second request ends the wait for running jobs."""
        # A counter, because setting an Event in a signal handler deadlocks if the interrupted
        # thread is waiting for it.
        self._stop_requests += 1

    def _pause(self, seconds: float) -> bool:
        """Sleep unless a stop is requested; return True if it is."""
        deadline = monotonic() + seconds
        while not self.stop_requested and monotonic() < deadline:
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
        self._end(self._server, signal.SIGTERM, timeout=STOP_TIMEOUT, can_hurry=False)

    def _end(
        self, children: Sequence[Process], number: int, timeout: float, *, can_hurry: bool = True
    ) -> None:
        handles = [child.handle for child in children]
        killed = end(handles, number, timeout, lambda: can_hurry and self._stop_requests > 1)
        for child in children:
            child.wait(1)
            if child.handle in killed:
                show(child.name, "did not stop: killed")


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
