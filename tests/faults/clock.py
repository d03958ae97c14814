"""One clock for a machine and all its containers, even for those with a wrong clock."""

from pathlib import Path
from time import monotonic

_UPTIME = Path("/proc/uptime")
#: Resolution of the clock, in seconds.
RESOLUTION = 0.01


def now() -> float:
    """Return the seconds since the machine's start.

    Read from the kernel: libfaketime also shifts a process's monotonic clock.
    """
    return float(_UPTIME.read_text().split()[0]) if _UPTIME.exists() else monotonic()
