"""What of the machine a process may use: cores and memory, as its container limits them.

`os.cpu_count` and numpy's BLAS see the whole machine; a container's share is written in the
files of its control group (https://docs.kernel.org/admin-guide/cgroup-v2.html).
"""

import math
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
#: What the BLAS libraries that numpy is built with read as they are loaded.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def cores(root: Path = CGROUPS) -> int:
    """Return how many cores this process can keep busy: at least 1.

    The fewer of those it may run on (affinity) and those that its control group's quota pays
    for. Of a quota of 1.5 cores, one: more threads would all be halted in every period.
    """
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:
        affinity = os.cpu_count() or 1
    return max(1, min([affinity, *map(math.floor, _quotas(root))]))


def memory(root: Path = CGROUPS) -> int:
    """Return how many bytes this process can have: the machine's, or its control group's limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [*_numbers(root, "memory.max"), *_numbers(root / "memory", "memory.limit_in_bytes")]
    return min([machine, *limits])


def share_cores(processes: int, environment: MutableMapping[str, str]) -> None:
    """Give each of a worker's processes its part of the cores, before it loads numpy.

    A BLAS starts a thread a core of the machine, in every process; where a quota allows
    fewer, they stop each other. A lower number that is set already stays.
    """
    threads = max(1, cores() // processes)
    for variable in THREAD_VARIABLES:
        with suppress(KeyError, ValueError):
            threads = min(threads, max(1, int(environment[variable])))
    for variable in THREAD_VARIABLES:
        environment[variable] = str(threads)
    # OpenBLAS' threads wait for more work at full speed, for 2 to the power of 26 cycles: while
    # a product is on its way to Redis, they would keep the cores from those who move it.
    environment.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def _quotas(root: Path) -> Iterator[float]:
    """Yield the cores that each quota pays for."""
    for file in _files(root, "cpu.max"):  # version 2: "150000 100000", or "max 100000"
        with suppress(OSError, ValueError):
            quota, period = map(int, file.read_text().split())
            yield quota / period
    with suppress(OSError, ValueError):  # version 1: -1 where there is none
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        if quota > 0:
            yield quota / int((root / "cpu" / "cpu.cfs_period_us").read_text())


def _numbers(root: Path, name: str) -> Iterator[int]:
    for file in _files(root, name):
        with suppress(OSError, ValueError):
            yield int(file.read_text())


def _files(root: Path, name: str) -> Iterator[Path]:
    """Yield the file of this process's control group and of each group around it.

    In a container the root is its own group; on a host, a service's is further down.
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
