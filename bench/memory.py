"""Peak memory of a large product above idle, at its caller and at its worker.

Linux keeps each process's peak (VmHWM in /proc/PID/status); a write to /proc/PID/clear_refs
resets it to the current use: proc_pid_status(5), proc_pid_clear_refs(5).
"""

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from bench.figures import Figure, Measured
from bench.servers import RunningCluster
from bench.work import ELEMENT, MB, TIMEOUT
from callers.client import Client
from cluster.errors import ClusterError

#: Bound of the ratio of the bytes in use to the bytes of the arrays.
BOUND = 1.3
#: Timeout of the workers' replies, in seconds.
ANSWER_TIMEOUT = 1.0


class Processes:
    """Local processes, with their memory while idle, before any large work."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._idle = {pid: psutil.Process(pid).memory_info().rss for pid in pids}
        self.reset_peak()

    def reset_peak(self) -> None:
        """Reset the peak to the current use; raises OSError if that is refused."""
        for pid in self._idle:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_above_idle(self) -> float:
        """Return the sum of the peaks above idle, in MB."""
        return sum(_peak(pid) - idle for pid, idle in self._idle.items()) / MB


def measure(client: Client, size: int, rounds: Iterable[int]) -> tuple[list[Figure], list[str]]:
    """Return the peaks of caller and worker for a product of `size`, and notes on what is missing.

    Call it first: a worker that keeps memory after large work counts it as idle.
    """
    if not Path("/proc/self/clear_refs").exists():
        return [], ["peak memory is left out: it can be measured on Linux only"]
    client.call("mat_mul.tasks.mat_mul", 1, 1, timeout=TIMEOUT)
    worker = _worker(client)
    ours, workers = [], []
    with RunningCluster() as cluster:
        for seed in rounds:
            with cluster.client() as caller:  # a new one, whose memory is small
                caller.ask("product", size=1, seed=seed)
                this = Processes(process.pid for process in caller.processes)
                if worker:
                    worker.reset_peak()
                caller.ask("product", size=size, seed=seed)
                ours.append(this.peak_above_idle())
                if worker:
                    workers.append(worker.peak_above_idle())
                caller.ask("check_product", size=size, seed=seed)
    array = size * size * ELEMENT / MB
    work = f"mat_mul({size}, {size})"
    figures = [_figure(f"caller's peak, {work}", ours, array)]
    if not worker:
        return figures, ["the worker's peak memory is left out: its processes cannot be seen here"]
    return [_figure(f"worker's peak, {work}", workers, 3 * array), *figures], []


def _figure(name: str, peaks: list[float], arrays: float) -> Figure:
    return Figure(name, "MB", Measured.median(peaks), Measured.exactly(arrays), BOUND)


def _worker(client: Client) -> Processes | None:
    """Return the processes of the mat_mul workers, or None if one of them is not seen here."""
    answers = client.app.control.inspect(timeout=ANSWER_TIMEOUT).stats() or {}
    pids = []
    for name, stats in answers.items():
        if name.startswith("mat_mul@"):
            if name != f"mat_mul@{socket.gethostname()}.{stats['pid']}":  # as in a container
                return None
            pids += [stats["pid"], *stats["pool"]["processes"]]
    if not pids:
        raise ClusterError("no mat_mul worker answers")
    with suppress(PermissionError, psutil.Error):
        return Processes(pids)
    return None


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    if not found:
        raise ClusterError(f"process {pid} has ended")
    return int(found[1]) * 1024
