"""A figure beside its yardstick: its ratio and its bound, and tables in Markdown."""

import math
import statistics
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import chain
from typing import NamedTuple, Self

import msgspec

#: Numbers of at least this are shown without decimal places.
MIN_WHOLE = 100


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

    def __str__(self) -> str:
        if self.least == self.greatest:
            return short(self.value)
        return f"{short(self.value)} ({short(self.least)} … {short(self.greatest)})"


class Goal(Enum):
    """The meaning of a bound, and the direction of its ratio."""

    #: Ours over the yardstick is at most the bound: a cost.
    AT_MOST = "at most"
    #: Ours over the yardstick is at least the bound: a rate.
    TIMES_AS_MUCH = "times as much"
    #: The yardstick over ours is at least the bound: a time.
    TIMES_LESS = "times less"


class Figure(msgspec.Struct):
    """A measurement of the cluster and its yardstick, in the same unit."""

    name: str
    unit: str
    ours: Measured
    yardstick: Measured
    bound: float
    goal: Goal = Goal.AT_MOST
    #: What the goal names, and whether it meets the bound.
    ratio: float = 0.0
    met: bool = False

    def __post_init__(self) -> None:
        ours, yardstick = self.ours.value, self.yardstick.value
        self.ratio = yardstick / ours if self.goal is Goal.TIMES_LESS else ours / yardstick
        is_at_most = self.goal is Goal.AT_MOST
        self.met = self.ratio <= self.bound if is_at_most else self.ratio >= self.bound

    @property
    def asked(self) -> str:
        """The bound with its side."""
        return f"{'≤' if self.goal is Goal.AT_MOST else '≥'} {self.bound:g}"


def percentile(samples: Iterable[float], percent: float) -> float:
    """Return the percentile of `samples` by the nearest-rank method."""
    ordered = sorted(samples)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def short(value: float) -> str:
    """Return a number with three significant digits, or as an integer from 100 on."""
    return f"{value:,.0f}" if value >= MIN_WHOLE else f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], align: str = "---:") -> str:
    """Return a table, whose first column is text; `align` is the rule of the others."""
    rule = "|".join(["---", *[align] * (len(head) - 1)])
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def figure_table(figures: Iterable[Figure]) -> str:
    """Return figures as a table: both values, ratio and bound."""
    return table(
        ("", "ours", "beside", "ratio", "bound", "met"),
        [
            (
                figure.name,
                f"{short(figure.ours.value)} {figure.unit}",
                f"{short(figure.yardstick.value)} {figure.unit}",
                f"**{figure.ratio:.2f}**",
                figure.asked,
                "yes" if figure.met else "**no**",
            )
            for figure in figures
        ],
    )


def missed(figures: Iterable[Figure]) -> str:
    """Return a sentence that names the figures that miss their bounds."""
    names = [figure.name for figure in figures if not figure.met]
    return f"bounds missed: {'; '.join(names)}" if names else "all bounds are met"
