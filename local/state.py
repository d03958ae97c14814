"""The folder of a local cluster: its data, and a record of its running processes."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from cluster.errors import ClusterError
from local.process import is_alive

#: Default folder of the cluster that `local start` runs: data, process ids, heartbeats.
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".local"
#: File that marks a folder as a local cluster's.
MARKER_FILE = "task-cluster"


class NotOurs(ClusterError):
    """A folder contains something other than the state of a local cluster."""


class Running(NamedTuple):
    """A running process of the cluster; `role` is supervisor, server or a family's name."""

    role: str
    process: psutil.Process

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        with suppress(psutil.NoSuchProcess):
            self.process.send_signal(number)


class State:
    """The record of running processes, in a folder that only its owner can read.

    Raise NotOurs for a folder that contains something else.
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder
        self.data = folder / "redis"
        self._processes = folder / "processes"
        self._check()

    def _check(self) -> None:
        """Raise NotOurs unless the folder is a local cluster's, empty or missing."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise NotOurs(f"LOCAL_STATE must name a folder, not {self.folder}")
        names = {path.name for path in self.folder.iterdir()}
        # Beat keeps its schedule here, and may be the first to create the folder.
        others = [name for name in names if not name.startswith("beat-schedule")]
        if others and MARKER_FILE not in names:
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
        """Record a process, in the name of an empty file: its role, id and time of start."""
        self._processes.mkdir(parents=True, exist_ok=True)
        self.heartbeat(role, pid).unlink(missing_ok=True)
        started = _seconds_from_boot(psutil.Process(pid))
        (self._processes / f"{role}.{pid}.{started}").touch()

    def heartbeat(self, role: str, pid: int) -> Path:
        """Return the file that a worker touches while it consumes."""
        return self.folder / f"{role}.{pid}.heartbeat"

    def running(self) -> Iterator[Running]:
        """Yield the running processes; delete the records and heartbeats of others."""
        for file in sorted(self._processes.glob("*.*.[0-9]*")):
            role, pid, started = file.name.split(".")
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(pid))
                # Another process may have the id; a second more or less is the clock's.
                if abs(_seconds_from_boot(process) - int(started)) <= 1 and is_alive(process):
                    yield Running(role, process)
                    continue
            file.unlink(missing_ok=True)
            self.heartbeat(role, int(pid)).unlink(missing_ok=True)


def _seconds_from_boot(process: psutil.Process) -> int:
    """Return when a process started: in seconds from boot, which no change of the clock moves."""
    return round(process.create_time() - psutil.boot_time())
