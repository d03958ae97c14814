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

#: Numbers of at least this are shown without decimal places.
MIN_WHOLE = 1000


class Measured(NamedTuple):
    """The value of several measurements, with the least and the greatest."""

    value: float
    least: float
    greatest: float

    @classmethod
    def median(cls, samples: Sequence[float]) -> Self:
        """Return the median of samples, and their spread."""
        return cls(statistics.median(samples), min(samples), max(samples))

    @classmethod
    def p99(cls, rounds: Sequence[Sequence[float]]) -> Self:
        """Return the p99 of all rounds together, and the least and the greatest p99 of a round."""
        each = [percentile(samples, 99) for samples in rounds]
        return cls(percentile(chain.from_iterable(rounds), 99), min(each), max(each))

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Return a computed value, which has no spread."""
        return cls(value, value, value)

    def shown(self, unit: str) -> str:
        """Return the value with its unit, and its spread on a second line."""
        value = f"{brief(self.value)} {unit}"
        if self.least == self.greatest:
            return value
        return f"{value}\n{brief(self.least)} … {brief(self.greatest)}"


class Goal(Enum):
    """The meaning of a bound, and the direction of its ratio."""

    #: Ours over the yardstick is at most the bound: a cost.
    AT_MOST = auto()
    #: Ours over the yardstick is at least the bound: a rate.
    TIMES_AS_MUCH = auto()
    #: The yardstick over ours is at least the bound: a time.
    TIMES_LESS = auto()


class Figure(NamedTuple):
    """A measurement of the cluster and its yardstick, in the same unit."""

    name: str
    unit: str
    ours: Measured
    yardstick: Measured
    bound: float
    goal: Goal = Goal.AT_MOST

    @property
    def ratio(self) -> float:
        """The ratio that the goal names."""
        if self.goal is Goal.TIMES_LESS:
            return self.yardstick.value / self.ours.value
        return self.ours.value / self.yardstick.value

    @property
    def met(self) -> bool:
        """Whether the ratio meets its bound."""
        if self.goal is Goal.AT_MOST:
            return self.ratio <= self.bound
        return self.ratio >= self.bound

    @property
    def asked(self) -> str:
        """The bound with its side."""
        return f"{'≤' if self.goal is Goal.AT_MOST else '≥'} {self.bound:g}"

    def as_json(self) -> dict[str, Any]:
        """Return the figure as JSON; the values are medians or percentiles."""
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
    """Return the percentile of `samples` by the nearest-rank method."""
    ordered = sorted(samples)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def brief(value: float) -> str:
    """Return a number with one decimal place, or as an integer if it is large."""
    return f"{value:.1f}" if abs(value) < MIN_WHOLE else f"{value:.0f}"


def table(figures: Iterable[Figure]) -> Table:
    """Return figures as a table: both values with their spread, ratio and bound."""
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
    """Return a sentence that names the figures that miss their bounds."""
    names = [figure.name for figure in figures if not figure.met]
    return f"bounds missed: {'; '.join(names)}" if names else "all bounds are met"


def check_writable(file: Path) -> None:
    """Raise OSError if `write` could not write `file`; change nothing."""
    target = file.resolve()
    if target.exists() and not target.is_file():
        raise OSError(f"{str(file)!r} is not a file")
    part = _part(target)
    part.open("w").close()
    part.unlink()


def write(figures: Iterable[Figure], file: Path) -> None:
    """Write figures as a JSON list, atomically."""
    write_json([figure.as_json() for figure in figures], file)


def write_json(value: object, file: Path) -> None:
    """Write a value as JSON, atomically."""
    target = file.resolve()
    part = _part(target)
    try:
        part.write_text(json.dumps(value, indent=2) + "\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _part(target: Path) -> Path:
    """Return the temporary name under which a file is written."""
    return target.with_name(f".{target.name}.{os.getpid()}")
