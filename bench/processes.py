"""CPU time and memory of groups of processes, from /proc (proc_pid_stat(5))."""

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from cluster.errors import ClusterError

#: Seconds after which processes that have not ended are killed.
STOP_TIMEOUT = 20.0
#: Interval at which they are checked, in seconds.
POLL_INTERVAL = 0.02
#: Places of fields after the program's name: state, session, and the user and system time, in
#: ticks, of the process and of its children that have ended.
_STATE, _SESSION, _TIMES = 0, 3, slice(11, 15)
#: Ticks per second in which Linux counts CPU time.
TICKS = os.sysconf("SC_CLK_TCK")


class Session:
    """A program and its children, in their own session; the output goes to a file."""

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], folder: Path, cwd: Path
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                argv, env=env, cwd=cwd, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pids(self) -> list[int]:
        """The processes of the session that have not ended."""
        return list(session(self._popen.pid))

    def check(self) -> None:
        """Raise ClusterError with the last line of its output if the program has ended."""
        if self._popen.poll() is not None:
            raise ClusterError(f"{self.name} ended: {last_words(self.log)}")

    def stop(self) -> None:
        """Terminate it, then kill the rest; return when all processes have ended.

        A second Ctrl-C, or make's second signal, does not leave processes behind.
        """
        try:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT)
        finally:
            self._kill_the_rest()

    def _kill_the_rest(self) -> None:
        deadline = monotonic() + STOP_TIMEOUT
        # In a loop: a process may have started another just before it was killed.
        while monotonic() < deadline and (left := self.pids):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._popen.poll()
            sleep(POLL_INTERVAL)
        self._popen.wait(STOP_TIMEOUT)


def session(leader: int) -> Iterator[int]:
    """Yield the processes of a session that have not ended."""
    for entry in Path("/proc").iterdir():
        fields = _stat(entry.name) if entry.name.isdigit() else []
        if fields and int(fields[_SESSION]) == leader and fields[_STATE] != "Z":
            yield int(entry.name)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes, and of their children that have ended."""
    return sum(sum(map(int, fields[_TIMES])) / TICKS for pid in pids if (fields := _stat(str(pid))))


def memory(pids: Iterable[int]) -> tuple[float, str]:
    """Return the memory of processes in MB, and how it is counted: as PSS, or else as RSS.

    PSS divides shared memory among the processes that share it.
    """
    pids = list(pids)
    try:
        return sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in pids) * 1024 / 1e6, "PSS"
    except OSError:
        return sum(_kilobytes(pid, "status", "VmRSS") for pid in pids) * 1024 / 1e6, "RSS"


def last_words(log: Path) -> str:
    """Return the last line of a program's output."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def _kilobytes(pid: int, file: str, field: str) -> int:
    text = Path(f"/proc/{pid}/{file}").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _stat(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
