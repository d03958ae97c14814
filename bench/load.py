"""The load of other programs during a measurement: on a busy machine no figure is valid.

A yardstick that shares the cores is slow, which makes the cluster look fast.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

#: Limit for the share of the cores that other programs may use; an idle cluster uses 1-2%.
MAX_SHARE = 0.1
#: Minimum time to watch, in seconds: Linux counts CPU time in hundredths.
MIN_SECONDS = 1.0
#: Steps of the calculation by which the machine's speed is measured: a fifth of a second or more,
#: since a shared core's speed may change within a second.
PROBE = 10_000_000
#: Factor between the mean speeds that systems may have had.
MAX_DRIFT = 1.25
_STAT = Path("/proc/stat")
#: The first line's fields user, nice, system, irq, softirq and steal (proc_stat(5)); user includes
#: guests.
_BUSY = (1, 2, 3, 6, 7, 8)


def probe() -> float:
    """Return the milliseconds that a fixed calculation takes, which tell the machine's speed."""
    start = perf_counter()
    for _ in range(PROBE):
        pass
    return 1000 * (perf_counter() - start)


class Load:
    """CPU time of other programs during a measurement."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.others = 0.0

    @contextmanager
    def watched(self, own_seconds: Callable[[], float] = process_time) -> Iterator[None]:
        """Measure the load in a block; `own_seconds` counts the CPU time of our own processes."""
        if not _STAT.exists():
            yield
            return
        start, own, busy = perf_counter(), own_seconds(), _busy()
        yield
        self.seconds += perf_counter() - start
        self.others += _busy() - busy - (own_seconds() - own)

    @property
    def share(self) -> float | None:
        """The share of the cores that other programs used; None if it was watched too briefly."""
        if self.seconds < MIN_SECONDS:
            return None
        return max(0.0, self.others / self.seconds / (os.cpu_count() or 1))

    def notes(self, when: str = "while the yardsticks ran") -> list[str]:
        """Return the note on the machine's load; `when` says when it was measured."""
        share = self.share
        if share is None:
            return ["the load of other programs is not known"]
        note = f"other programs took {share:.0%} of the cores {when}"
        if share > MAX_SHARE:
            note += ": the machine was busy, and THESE FIGURES DO NOT HOLD, met or missed"
        return [note]


def _busy() -> float:
    """Return the CPU seconds of all cores since boot."""
    fields = _STAT.read_text().split("\n", 1)[0].split()
    return sum(int(fields[place]) for place in _BUSY) / os.sysconf("SC_CLK_TCK")
