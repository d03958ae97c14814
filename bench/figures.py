"""A figure beside its yardstick: its ratio and its bound, shown as a table, written as JSON."""

import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

from rich.table import Table

#: Numbers from here on are shown without decimal places.
LARGE = 1000


class Measured(NamedTuple):
    """What several measurements gave: one value for all of them, the least and the greatest."""

    value: float
    least: float
    greatest: float

    @classmethod
    def median(cls, samples: Sequence[float]) -> Self:
        """Return the median of samples, and how far they spread."""
        return cls(statistics.median(samples), min(samples), max(samples))

    @classmethod
    def p99(cls, rounds: Sequence[Sequence[float]]) -> Self:
        """Return the 99th percentile of all rounds together, and the least and greatest of one."""
        each = [percentile(samples, 99) for samples in rounds]
        return cls(percentile(chain.from_iterable(rounds), 99), min(each), max(each))

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Return what is computed, not measured."""
        return cls(value, value, value)

    def shown(self, unit: str) -> str:
        """Return the value with its unit, and in a second line how far it spreads."""
        value = f"{brief(self.value)} {unit}"
        if self.least == self.greatest:
            return value
        return f"{value}\n{brief(self.least)} … {brief(self.greatest)}"


class Goal(Enum):
    """What a bound asks for, and so which way the ratio is taken."""

    #: Ours over the yardstick is within the bound: what something costs.
    AT_MOST = auto()
    #: Ours over the yardstick reaches the bound: what is done in a second.
    TIMES_AS_MUCH = auto()
    #: The yardstick over ours reaches the bound: time, of which less is better.
    TIMES_LESS = auto()


class Figure(NamedTuple):
    """What was measured of the cluster, beside what it is compared with, in the same unit."""

    name: str
    unit: str
    ours: Measured
    yardstick: Measured
    bound: float
    goal: Goal = Goal.AT_MOST

    @property
    def ratio(self) -> float:
        """How many times the other's value one is: as the goal says."""
        if self.goal is Goal.TIMES_LESS:
            return self.yardstick.value / self.ours.value
        return self.ours.value / self.yardstick.value

    @property
    def met(self) -> bool:
        """Whether the ratio is on the right side of its bound."""
        if self.goal is Goal.AT_MOST:
            return self.ratio <= self.bound
        return self.ratio >= self.bound

    @property
    def asked(self) -> str:
        """The bound with its side."""
        return f"{'≤' if self.goal is Goal.AT_MOST else '≥'} {self.bound:g}"

    def as_json(self) -> dict[str, Any]:
        """Return what is written of a figure; the values are medians, or percentiles."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours.value,
            "yardstick": self.yardstick.value,
            "ratio": self.ratio,
            "bound": self.bound,
            "met": self.met,
        }


def percentile(samples: Iterable[float], percent: float) -> float:
    """Return the smallest sample that so many percent of them do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def brief(value: float) -> str:
    """Return a number with as many places as a reader needs."""
    return f"{value:.1f}" if abs(value) < LARGE else f"{value:.0f}"


def table(figures: Iterable[Figure]) -> Table:
    """Return figures as a table: value and spread, those of the yardstick, ratio and bound."""
    shown = Table("work", "ours", "yardstick", "ratio", "bound", "met")
    for column in shown.columns[1:5]:
        column.justify = "right"
        column.no_wrap = True
    for figure in figures:
        shown.add_row(
            figure.name,
            figure.ours.shown(figure.unit),
            figure.yardstick.shown(figure.unit),
            f"{figure.ratio:.2f}",
            figure.asked,
            "yes" if figure.met else "no",
        )
    return shown


def missed(figures: Iterable[Figure]) -> str:
    """Return a sentence that names the figures on the wrong side of their bounds."""
    names = [figure.name for figure in figures if not figure.met]
    return f"bounds missed: {'; '.join(names)}" if names else "all bounds are met"


def check_writable(file: Path) -> None:
    """Find out whether `write` could write a file; raises OSError if not, with nothing changed."""
    target = file.resolve()
    if target.exists() and not target.is_file():
        raise OSError(f"{str(file)!r} is no file")
    part = _part(target)
    part.open("w").close()
    part.unlink()


def write(figures: Iterable[Figure], file: Path) -> None:
    """Write figures as a JSON list, as a whole or not at all."""
    write_json([figure.as_json() for figure in figures], file)


def write_json(value: object, file: Path) -> None:
    """Write a value as JSON, as a whole or not at all."""
    target = file.resolve()
    part = _part(target)
    try:
        part.write_text(json.dumps(value, indent=2) + "\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _part(target: Path) -> Path:
    """Return where a file is written before it takes its name."""
    return target.with_name(f".{target.name}.{os.getpid()}")
