"""How much of the machine other programs took meanwhile: on a busy one no figure holds.

A yardstick that has to share the cores is slow, and a cluster that does not, beside it, looks
fast: a ratio of 0.3 was seen so, of work that on the idle machine has one of 1.3.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

#: The share of the cores that others may take; an idle cluster takes a hundredth or two.
MOST = 0.1
#: Seconds to watch before there is something to say: Linux counts in hundredths.
LEAST_SECONDS = 1.0
_STAT = Path("/proc/stat")
#: Of the first line's fields all but idle and waiting, and guests, who are in user's already:
#: user, nice, system, irq, softirq, steal (proc_stat(5)).
_BUSY = (1, 2, 3, 6, 7, 8)


class Load:
    """What other programs used of the cores while something was measured."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.others = 0.0

    @contextmanager
    def watched(self, own_seconds: Callable[[], float] = process_time) -> Iterator[None]:
        """Watch the machine while this process works, or whatever `own_seconds` counts."""
        if not _STAT.exists():
            yield
            return
        start, own, busy = perf_counter(), own_seconds(), _busy()
        yield
        self.seconds += perf_counter() - start
        self.others += _busy() - busy - (own_seconds() - own)

    @property
    def share(self) -> float | None:
        """The part of the cores that others used, None if nobody watched for long enough."""
        if self.seconds < LEAST_SECONDS:
            return None
        return max(0.0, self.others / self.seconds / (os.cpu_count() or 1))

    def notes(self, when: str = "while the yardsticks ran") -> list[str]:
        """Return what is to be said of the machine, and of when."""
        share = self.share
        if share is None:
            return ["what other programs took of the machine is not known"]
        note = f"other programs took {share:.0%} of the cores {when}"
        if share > MOST:
            note += ": the machine was busy, and THESE FIGURES DO NOT HOLD, met or missed"
        return [note]


def _busy() -> float:
    """Return the seconds that all cores together were busy since the start of the machine."""
    fields = _STAT.read_text().split("\n", 1)[0].split()
    return sum(int(fields[place]) for place in _BUSY) / os.sysconf("SC_CLK_TCK")
