"""One clock for a machine and all its containers, also for those whose own clock is wrong."""

from pathlib import Path
from time import monotonic

_UPTIME = Path("/proc/uptime")
#: Seconds between two values.
RESOLUTION = 0.01


def now() -> float:
    """Return the seconds since the machine's start.

    Read from the kernel: what gives a process a wrong clock shifts its monotonic one, too.
    """
    return float(_UPTIME.read_text().split()[0]) if _UPTIME.exists() else monotonic()
