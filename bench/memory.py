"""Peak memory of a large product above idle, at its caller and at its worker.

Linux keeps each process's peak (VmHWM in /proc/PID/status); a write to /proc/PID/clear_refs
resets it to the current use: proc_pid_status(5), proc_pid_clear_refs(5).
"""

import re
import socket
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.calls import TIMEOUT
from bench.child import Child
from bench.figures import Figure, Measured
from bench.values import check, product
from callers.client import Client
from cluster.errors import ClusterError

#: Bytes of a MB, and of one element.
MB = 1_000_000
ELEMENT = 8
#: Bounds of the ratio of the bytes in use to the bytes of the arrays.
WORKER_BOUND = 1.3
CALLER_BOUND = 1.3
#: Timeout of the workers' replies, in seconds.
ANSWER_TIMEOUT = 1.0
#: Resets a process's peak: proc_pid_clear_refs(5).
_RESET_PEAK = "5"


class Processes:
    """Local processes, with their memory while idle, before any large work."""

    def __init__(self, pids: Iterable[int | str]) -> None:
        self._idle = {pid: _bytes(pid, "VmRSS") for pid in pids}
        self.reset_peak()

    def reset_peak(self) -> None:
        """Reset the peak to the current use; raises OSError if that is refused."""
        for pid in self._idle:
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)

    def peak_above_idle(self) -> float:
        """Return the sum of the peaks above idle, in MB."""
        peaks = (_bytes(pid, "VmHWM") - idle for pid, idle in self._idle.items())
        return sum(peaks) / MB


def measure(client: Client, size: int, rounds: Iterable[int]) -> tuple[list[Figure], list[str]]:
    """Return the peaks of caller and worker for a product of `size`, and notes on what is missing.

    Call it first: a worker that keeps memory after large work counts it as idle.
    """
    if not Path("/proc/self/clear_refs").exists():
        return [], ["peak memory is left out: it can be measured on Linux only"]
    work = f"mat_mul({size}, {size})"
    client.call("mat_mul.tasks.mat_mul", 1, 1, timeout=TIMEOUT)
    worker = _worker(client)
    ours, workers = [], []
    for seed in rounds:
        with Child(_call, size, seed) as child:
            child.receive()
            if worker:
                worker.reset_peak()
            child.send("go")
            ours.append(child.receive())
        if worker:
            workers.append(worker.peak_above_idle())
    array = Measured.exactly(size * size * ELEMENT / MB)
    all_three = Measured.exactly(3 * array.value)
    figures = [Figure(f"caller's peak, {work}", "MB", Measured.median(ours), array, CALLER_BOUND)]
    if not worker:
        return figures, ["the worker's peak memory is left out: its processes cannot be seen here"]
    peak = Measured.median(workers)
    return [Figure(f"worker's peak, {work}", "MB", peak, all_three, WORKER_BOUND), *figures], []


def _call(pipe: "Connection[Any, Any]", size: int, seed: int) -> None:
    """Send the peak above idle, in MB, of a caller that has made one small call before."""
    with Client() as client:
        client.call("mat_mul.tasks.mat_mul", 1, 1, seed, timeout=TIMEOUT)
        pipe.send("ready")
        pipe.recv()
        this = Processes(["self"])
        value = client.call("mat_mul.tasks.mat_mul", size, size, seed, timeout=TIMEOUT)
        peak = this.peak_above_idle()
        check("mat_mul", value, product(size, size, seed))
        pipe.send(peak)


def _worker(client: Client) -> Processes | None:
    """Return the processes of the mat_mul workers, or None if one of them is not visible here."""
    answers = client.app.control.inspect(timeout=ANSWER_TIMEOUT).stats() or {}
    pids = []
    for name, stats in answers.items():
        if name.startswith("mat_mul@"):
            if not _is_here(name, stats["pid"]):
                return None
            pids += [stats["pid"], *stats["pool"]["processes"]]
    if not pids:
        raise ClusterError("no mat_mul worker answers")
    try:
        return Processes(pids)
    except PermissionError:
        return None


def _is_here(name: str, pid: int) -> bool:
    """Return True if a worker is a local process; in a container it has another host name."""
    if name != f"mat_mul@{socket.gethostname()}.{pid}":
        return False
    try:
        return b"mat_mul" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _bytes(pid: int | str, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if not found:
        raise ClusterError(f"process {pid} has ended")
    return int(found[1]) * 1024
