"""The load of other programs during a measurement, and the machine's speed.

On a busy machine no figure is valid: a yardstick that shares the cores is slow, which makes the
cluster look fast.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import mean
from time import perf_counter, process_time

import psutil

#: Limit for the share of the cores that other programs may use; an idle cluster uses 1-2%.
MAX_SHARE = 0.1
#: Minimum time to watch, in seconds: Linux counts CPU time in hundredths.
MIN_SECONDS = 1.0
#: Steps of the calculation by which the machine's speed is measured: a fifth of a second or more,
#: since a shared core's speed may change within a second.
PROBE = 10_000_000
#: Factor between the mean speeds that systems may have had.
MAX_DRIFT = 1.25
#: Fields of the busy time, of which not all systems have each; user time includes that of guests.
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
_INVALID = "and the figures do not hold, met or missed"


class Load:
    """CPU time of other programs during a measurement."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.others = 0.0

    @contextmanager
    def watched(self, own_seconds: Callable[[], float] = process_time) -> Iterator[None]:
        """Measure the load in a block; `own_seconds` counts the CPU time of our own processes."""
        start, own, busy = perf_counter(), own_seconds(), busy_seconds()
        yield
        self.seconds += perf_counter() - start
        self.others += busy_seconds() - busy - (own_seconds() - own)

    def note(self, when: str = "while it was measured") -> str:
        """Return the note on the machine's load; `when` says when it was measured."""
        if self.seconds < MIN_SECONDS:
            return "the load of other programs is not known"
        share = max(0.0, self.others / self.seconds / (psutil.cpu_count() or 1))
        note = f"other programs took {share:.0%} of the cores {when}"
        return f"{note}: the machine was busy, {_INVALID}" if share > MAX_SHARE else note


def busy_seconds() -> float:
    """Return the CPU seconds of all cores since boot."""
    times = psutil.cpu_times()
    return sum(getattr(times, field, 0.0) for field in _BUSY)


def probe() -> float:
    """Return the milliseconds that a fixed calculation takes, which tell the machine's speed."""
    start = perf_counter()
    for _ in range(PROBE):
        pass
    return 1000 * (perf_counter() - start)


def drift(probes: Iterable[tuple[str, Sequence[float]]]) -> str:
    """Return the note on changes of the machine's speed, from the probes around systems' turns."""
    of: dict[str, list[float]] = {}
    for system, ms in probes:
        of.setdefault(system, []).extend(ms)
    means = [mean(each) for each in of.values()]
    note = f"a fixed calculation took {min(means):.0f} to {max(means):.0f} ms, on average around "
    note += "a system's turns"
    if max(means) > MAX_DRIFT * min(means):
        note += f": the machine's speed changed, {_INVALID}"
    return note
