"""Which processes of this checkout's local cluster run: a folder of files named by process id."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from cluster.errors import ClusterError

#: The folder of the cluster that `local start` starts: data, process ids, heartbeats.
DEFAULT = Path(__file__).resolve().parent.parent / ".local"


#: The file by which the folder of a local cluster is known.
MARK = "task-cluster"


class NotOurs(ClusterError):
    """A folder holds something else than the state of a local cluster."""


def _is_known(name: str) -> bool:
    """Return True for what an older version, which left no mark, kept in its folder."""
    known = {"redis", "processes", "stopped"}
    return name in known or name.startswith("beat-schedule") or name.endswith(".heartbeat")


class Running(NamedTuple):
    """A process that is known to be ours: `role` is supervisor, server or a family's name."""

    role: str
    pid: int

    def signal(self, number: int) -> None:
        """Send it a signal; it may have ended in between."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class State:
    """The record of what runs, in a folder of its own that its owner alone can read.

    Raises NotOurs for a folder that holds something else.
    """

    def __init__(self, folder: Path = DEFAULT) -> None:
        self.folder = folder
        self.data = folder / "redis"
        self._processes = folder / "processes"
        self._stopped = folder / "stopped"
        self._check()

    def _check(self) -> None:
        """Raise NotOurs unless the folder is one of a local cluster, or may become one."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise NotOurs(f"LOCAL_STATE must name a folder, not {self.folder}")
        names = {path.name for path in self.folder.iterdir()}
        if MARK not in names and not all(map(_is_known, names)):
            raise NotOurs(
                f"{self.folder} holds something else than a local cluster: "
                "name a folder of its own in LOCAL_STATE"
            )

    def make_private(self) -> None:
        """Make the folder, mark it, and take it and what it holds, from before, from all others."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / MARK).touch(0o600)
        for path in (self.folder, *self.folder.rglob("*")):
            with suppress(FileNotFoundError):  # gone meanwhile
                if not path.is_symlink():
                    path.chmod(0o700 if path.is_dir() else 0o600)

    def delete(self) -> None:
        """Remove the folder with all it holds, if it is there and one of a local cluster."""
        self._check()
        folder = self.folder.resolve()
        # Whatever it holds: no mistake elsewhere may ever reach these.
        if folder in {Path.home(), *Path.home().parents, *Path(__file__).resolve().parents}:
            raise NotOurs(f"{folder} is not removed: name a folder of its own in LOCAL_STATE")
        if folder.exists() and any(folder.iterdir()):
            shutil.rmtree(folder)

    def add(self, role: str, pid: int) -> None:
        """Note a process that was started, by its id and when that was."""
        self._processes.mkdir(parents=True, exist_ok=True)
        (self._stopped / str(pid)).unlink(missing_ok=True)
        self._file(role, pid).write_text(_started(pid))

    def remove(self, role: str, pid: int) -> None:
        """Forget a process that ended, and its heartbeat."""
        self._file(role, pid).unlink(missing_ok=True)
        self.heartbeat(role, pid).unlink(missing_ok=True)

    def stop(self, process: "Running") -> None:
        """Ask a process to end, and note that: its supervisor does not start it again."""
        self._stopped.mkdir(parents=True, exist_ok=True)
        (self._stopped / str(process.pid)).touch()
        process.signal(signal.SIGTERM)

    def was_stopped(self, pid: int) -> bool:
        """Tell whether a process ended because it was asked to."""
        return (self._stopped / str(pid)).exists()

    def forget_stops(self) -> None:
        """Forget who was asked to end: nobody is left whom it concerns."""
        shutil.rmtree(self._stopped, ignore_errors=True)

    def heartbeat(self, role: str, pid: int) -> Path:
        """Return the file that a worker keeps fresh while it consumes."""
        return self.folder / f"{role}.{pid}.heartbeat"

    def running(self) -> Iterator[Running]:
        """Yield what runs; forget what has ended, or whose id is another program's by now."""
        for file in sorted(self._processes.glob("*.pid")):
            role, pid = file.name.removesuffix(".pid").rsplit(".", 1)
            if _started(int(pid)) == file.read_text() != "":
                yield Running(role, int(pid))
            else:
                self.remove(role, int(pid))

    def wait_until_ended(self, processes: list[Running], seconds: float) -> list[Running]:
        """Wait for processes to end; return those that still run at the deadline."""
        deadline = monotonic() + seconds
        while left := [process for process in self.running() if process in processes]:
            if monotonic() > deadline:
                break
            sleep(0.1)
        return left

    def _file(self, role: str, pid: int) -> Path:
        return self._processes / f"{role}.{pid}.pid"


def stop(state: State, processes: list[Running], seconds: float) -> list[Running]:
    """Ask processes to end, wait for them, then kill; return those that had to be killed."""
    for process in processes:
        state.stop(process)
    left = state.wait_until_ended(processes, seconds)
    for process in left:
        process.signal(signal.SIGKILL)
    state.wait_until_ended(left, 5)
    return left


def _started(pid: int) -> str:
    """Return when a process started, which with its id names it for good; "" if it ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return ""
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
        return _started_by_ps(pid)
    # proc_pid_stat(5): the third field is the state, the 22nd the time of start.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _started_by_ps(pid: int) -> str:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
