"""A run of the comparison: its samples, and the machine and versions they belong to."""

import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from bench import comparison, turn
from bench.comparison import Row
from bench.conversation import Conversation
from bench.figures import Figure
from bench.load import MAX_DRIFT, MAX_SHARE
from bench.servers import Server
from bench.systems import System
from bench.turn import Sample, Sizes


class Run:
    """The samples of a run, with its machine, versions and settings."""

    def __init__(
        self,
        *,
        start: str,
        samples: list[Sample],
        sizes: Sizes,
        rounds: int,
        appendfsync: str,
        server: str,
        machine: Mapping[str, str],
        versions: Mapping[str, Mapping[str, str]],
        others: float | None,
        failed: Mapping[str, str],
    ) -> None:
        self.start = start
        self.samples = samples
        self.sizes = sizes
        self.rounds = rounds
        self.appendfsync = appendfsync
        self.server = server
        self.machine = machine
        self.versions = versions
        self.others = others
        #: Errors of the peers that failed and are left out, by name.
        self.failed = failed

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each system."""
        return comparison.rows(self.samples)

    @cached_property
    def figures(self) -> list[Figure]:
        """The figures with their bounds."""
        return comparison.figures(self.rows, self.appendfsync)

    @property
    def named_figures(self) -> list[Figure]:
        """The figures, with the setting of appendfsync in their names."""
        setting = f"appendfsync {self.appendfsync}"
        return [figure._replace(name=f"{figure.name}, {setting}") for figure in self.figures]

    @property
    def note(self) -> str:
        """A note on the load of other programs, and on changes of the machine's speed."""
        if self.others is None:
            note = "the load of other programs is not known"
        else:
            note = f"other programs took {self.others:.0%} of the cores while it was measured"
            if self.others > MAX_SHARE:
                note += ": the machine was busy, and the figures do not hold, met or missed"
        probes: dict[str, list[float]] = {}
        for sample in self.samples:
            probes.setdefault(sample.system, []).extend(sample.probes)
        means = [mean(each) for each in probes.values()]
        note += f"; a fixed calculation took {min(means):.0f} to {max(means):.0f} ms, "
        note += "on average around a system's turns"
        if max(means) > MAX_DRIFT * min(means):
            note += ": the machine's speed changed, and the figures do not hold, met or missed"
        return note

    def as_json(self) -> dict[str, Any]:
        """Return the run as JSON."""
        known = {name: value for name, value in vars(self).items() if name not in _DERIVED}
        return {
            **known,
            "sizes": self.sizes._asdict(),
            "samples": [turn.as_json(sample) for sample in self.samples],
        }

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Run":
        """Return the run of `as_json`."""
        sizes = Sizes(**written["sizes"])
        samples = [turn.from_json(sample) for sample in written["samples"]]
        return cls(**{**written, "sizes": sizes, "samples": samples})


_DERIVED = ("rows", "figures")


def now() -> str:
    """Return the time, in UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def machine() -> dict[str, str]:
    """Return the machine's processor, cores, memory and system."""
    return {
        "processor": _found(r"^model name\s*:\s*(.+)$", "/proc/cpuinfo") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
    }


def packages(system: System, server: Server) -> dict[str, str]:
    """Return the versions of the packages in a system's environment."""
    with Conversation(system, server.variables(system), server.folder, "versions") as client:
        return client.ask("versions", names=system.packages)


def _found(pattern: str, file: str) -> str:
    try:
        found = re.search(pattern, Path(file).read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""
