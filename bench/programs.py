"""Programs that a measurement starts, with the CPU time and the memory of their processes."""

import json
import os
import select
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from cluster.errors import ClusterError
from local.server import ROOT

#: Seconds after which processes that have not ended are killed.
STOP_TIMEOUT = 20.0
#: Timeout of an answer, in seconds.
ANSWER_TIMEOUT = 600.0


class Program:
    """A program and its children, in their own session; its output goes to a file."""

    _pipe: int | None = None

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                argv,
                bufsize=0,
                env=env,
                cwd=ROOT,
                stdin=self._pipe,
                stdout=self._pipe or log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Terminate it, then kill the rest; return when all processes have ended.

        A second Ctrl-C, or make's second signal, does not leave processes behind.
        """
        try:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT)
        finally:
            # In a loop: a process may have started another just before it was killed.
            while left := self.processes:
                for process in left:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(left, STOP_TIMEOUT)
            self._popen.communicate()

    @property
    def processes(self) -> list[psutil.Process]:
        """The processes of the session that have not ended."""
        return [each for each in psutil.process_iter() if _session(each) == self._popen.pid]

    def check(self) -> None:
        """Raise ClusterError with the last line of its output if the program has ended."""
        if self._popen.poll() is not None:
            self._raise_ended()

    def _raise_ended(self) -> None:
        lines = self._log.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        raise ClusterError(f"{self.name} ended: {last}")


class Conversation(Program):
    """A program that answers requests, a line of JSON each (bench.peers.protocol)."""

    _pipe = subprocess.PIPE

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer; raises ClusterError for an error."""
        self.send(do, **arguments)
        return self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        """Send a request."""
        assert self._popen.stdin
        try:
            self._popen.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        except BrokenPipeError:
            self._raise_ended()

    def has_answered(self) -> bool:
        """Return True if there is an answer to read."""
        return self._is_readable(0)

    def answer(self) -> Any:
        """Wait for an answer."""
        if not self._is_readable(ANSWER_TIMEOUT):
            raise ClusterError(f"{self.name} gave no answer within {ANSWER_TIMEOUT:g} s")
        assert self._popen.stdout
        line = self._popen.stdout.readline()
        if not line:
            self._raise_ended()
        answer = json.loads(line)
        if "error" in answer:
            raise ClusterError(f"{self.name}: {answer['error']}")
        return answer["value"]

    def _is_readable(self, seconds: float) -> bool:
        return bool(select.select([self._popen.stdout], [], [], seconds)[0])  # type: ignore[type-var]


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds of processes, and of their children that have ended."""
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def memory(processes: Iterable[psutil.Process]) -> float:
    """Return the PSS of processes in MB, which divides memory among those that share it."""
    try:
        return sum(process.memory_full_info().pss for process in processes) / 1e6
    except psutil.NoSuchProcess as error:
        raise ClusterError(f"process {error.pid} has ended") from None


def _session(process: psutil.Process) -> int | None:
    """Return the session of a process, or None if it has ended."""
    try:
        session = os.getsid(process.pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else session
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
