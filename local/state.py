"""A record of a local cluster's processes: a folder of files named by role and process id."""

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

#: Default folder of the cluster that `local start` runs: data, process ids, heartbeats.
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".local"


#: File that marks a folder as a local cluster's.
MARKER_FILE = "task-cluster"


class NotOurs(ClusterError):
    """A folder contains something other than the state of a local cluster."""


def _is_known(name: str) -> bool:
    """Return True for the name of a file of older versions, which left no marker."""
    known = {"redis", "processes", "stopped"}
    return name in known or name.startswith("beat-schedule") or name.endswith(".heartbeat")


class Running(NamedTuple):
    """A running process of the cluster; `role` is supervisor, server or a family's name."""

    role: str
    pid: int

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class State:
    """The record of running processes, in a folder that only its owner can read.

    Raise NotOurs for a folder that contains something else.
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder
        self.data = folder / "redis"
        self._processes = folder / "processes"
        self._stopped = folder / "stopped"
        self._check()

    def _check(self) -> None:
        """Raise NotOurs unless the folder is a local cluster's, empty or missing."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise NotOurs(f"LOCAL_STATE must name a folder, not {self.folder}")
        names = {path.name for path in self.folder.iterdir()}
        if MARKER_FILE not in names and not all(map(_is_known, names)):
            raise NotOurs(
                f"{self.folder} contains something other than a local cluster: "
                "name an empty folder in LOCAL_STATE"
            )

    def make_private(self) -> None:
        """Create and mark the folder, and make it and its contents accessible to the owner only."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / MARKER_FILE).touch(0o600)
        for path in (self.folder, *self.folder.rglob("*")):
            with suppress(FileNotFoundError):  # removed meanwhile
                if not path.is_symlink():
                    path.chmod(0o700 if path.is_dir() else 0o600)

    def delete(self) -> None:
        """Delete the folder and its contents, if it exists and is a local cluster's."""
        self._check()
        folder = self.folder.resolve()
        # A safeguard: these must survive any mistake elsewhere.
        if folder in {Path.home(), *Path.home().parents, *Path(__file__).resolve().parents}:
            raise NotOurs(f"refusing to delete {folder}: name another folder in LOCAL_STATE")
        if folder.exists() and any(folder.iterdir()):
            shutil.rmtree(folder)

    def add(self, role: str, pid: int) -> None:
        """Record a process by its id and start time."""
        self._processes.mkdir(parents=True, exist_ok=True)
        (self._stopped / str(pid)).unlink(missing_ok=True)
        file = self._file(role, pid)
        # Renamed into place: `running`, in another process, deletes a record that it reads empty.
        unfinished = file.with_suffix(".new")
        unfinished.write_text(_start_time(pid))
        unfinished.replace(file)

    def remove(self, role: str, pid: int) -> None:
        """Delete the record of a process that ended, and its heartbeat."""
        self._file(role, pid).unlink(missing_ok=True)
        self.heartbeat(role, pid).unlink(missing_ok=True)

    def stop(self, process: "Running") -> None:
        """Ask a process to end, and record that, so that its supervisor does not restart it."""
        self._stopped.mkdir(parents=True, exist_ok=True)
        (self._stopped / str(process.pid)).touch()
        process.signal(signal.SIGTERM)

    def was_stopped(self, pid: int) -> bool:
        """Return True if a process was asked to end."""
        return (self._stopped / str(pid)).exists()

    def clear_stops(self) -> None:
        """Delete the records of processes that an earlier supervisor was to leave stopped."""
        shutil.rmtree(self._stopped, ignore_errors=True)

    def heartbeat(self, role: str, pid: int) -> Path:
        """Return the file that a worker touches while it consumes."""
        return self.folder / f"{role}.{pid}.heartbeat"

    def running(self) -> Iterator[Running]:
        """Yield the running processes; delete the records of others, whose ids may be reused."""
        for file in sorted(self._processes.glob("*.pid")):
            role, pid = file.name.removesuffix(".pid").rsplit(".", 1)
            if _start_time(int(pid)) == _read(file) != "":
                yield Running(role, int(pid))
            else:
                self.remove(role, int(pid))

    def wait_until_ended(self, processes: list[Running], seconds: float) -> list[Running]:
        """Wait for processes to end; return those still running after `seconds`."""
        deadline = monotonic() + seconds
        while left := [process for process in self.running() if process in processes]:
            if monotonic() > deadline:
                break
            sleep(0.1)
        return left

    def _file(self, role: str, pid: int) -> Path:
        return self._processes / f"{role}.{pid}.pid"


def stop(state: State, processes: list[Running], seconds: float) -> list[Running]:
    """Ask processes to end, kill those still running after `seconds`, and return these."""
    for process in processes:
        state.stop(process)
    left = state.wait_until_ended(processes, seconds)
    for process in left:
        process.signal(signal.SIGKILL)
    state.wait_until_ended(left, 5)
    return left


def _read(file: Path) -> str:
    """Return a file's contents; "" if another process has deleted it."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _start_time(pid: int) -> str:
    """Return a process's start time, which with its id identifies it; "" if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return ""
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
        return _start_time_by_ps(pid)
    # proc_pid_stat(5): the third field is the state, the 22nd the time of start.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _start_time_by_ps(pid: int) -> str:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
