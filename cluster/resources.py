"""Cores and memory that a process may use within the limits of its container.

`os.cpu_count` and numpy's BLAS see the whole machine; a container's limits are in the files of
its control group (https://docs.kernel.org/admin-guide/cgroup-v2.html).
"""

import math
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
#: Number of threads, read by numpy's BLAS libraries when they are loaded.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def cores(root: Path = CGROUPS) -> int:
    """Return the number of cores that this process can keep busy, at least 1.

    The minimum of its CPU affinity and its control group's quota. A quota of 1.5 cores counts as
    one: with two busy threads the group would be throttled in every period.
    """
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:
        affinity = os.cpu_count() or 1
    return max(1, min([affinity, *map(math.floor, _quotas(root))]))


def memory(root: Path = CGROUPS) -> int:
    """Return the memory of the machine in bytes, or the control group's limit if lower."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [*_numbers(root, "memory.max"), *_numbers(root / "memory", "memory.limit_in_bytes")]
    return min([machine, *limits])


def share_cores(processes: int, environment: MutableMapping[str, str]) -> None:
    """Limit each pool process to its share of BLAS threads; call it before numpy is loaded.

    By default a BLAS starts one thread per core of the machine in every process, and under a
    lower quota these block each other. A lower limit that is already set is kept.
    """
    threads = max(1, cores() // processes)
    for variable in THREAD_VARIABLES:
        with suppress(KeyError, ValueError):
            threads = min(threads, max(1, int(environment[variable])))
    for variable in THREAD_VARIABLES:
        environment[variable] = str(threads)
    # Idle OpenBLAS threads spin for 2**26 cycles by default, and would take the cores from the
    # threads that send the product to Redis.
    environment.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota, in cores, of each control group that has one."""
    for file in _files(root, "cpu.max"):  # version 2: "150000 100000", or "max 100000"
        with suppress(OSError, ValueError):
            quota, period = map(int, file.read_text().split())
            yield quota / period
    with suppress(OSError, ValueError):  # version 1: -1 for no limit
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        if quota > 0:
            yield quota / int((root / "cpu" / "cpu.cfs_period_us").read_text())


def _numbers(root: Path, name: str) -> Iterator[int]:
    for file in _files(root, name):
        with suppress(OSError, ValueError):
            yield int(file.read_text())


def _files(root: Path, name: str) -> Iterator[Path]:
    """Yield the file `name` of this process's control group and of each of its parents.

    In a container the root is the process's own group; on a host its group is further down.
    """
    own = "/"
    with suppress(OSError, IndexError):
        text = Path("/proc/self/cgroup").read_text()
        own = next(line for line in text.splitlines() if line.startswith("0::"))[3:]
    group = root / own.lstrip("/")
    for folder in (group, *group.parents):
        yield folder / name
        if folder == root:
            return
