"""The time of large values, from the call to the value, beside the work alone."""

from collections.abc import Callable, Iterable
from functools import partial
from time import sleep
from typing import Any, NamedTuple

from bench.figures import Figure, Measured
from bench.load import Load
from bench.peers.protocol import timed
from bench.values import check
from callers.client import Client

#: Timeout of a job, in seconds; the largest take a few.
TIMEOUT = 120.0
#: Bytes of a MB, and of one element of an array.
MB, ELEMENT = 1_000_000, 8


class Work(NamedTuple):
    """A job, and the same work in one process."""

    name: str
    task: str
    args: tuple[Any, ...]
    yardstick: Callable[[], Any]
    bound: float
    #: Factor of the usual repeats: more for short work.
    repeats: int = 1
    #: Added to the yardstick, in ms.
    allowance: float = 0.0


def measure(client: Client, work: Work, rounds: Iterable[int], load: Load, rest: float) -> Figure:
    """Return the figure of `work`: ours and the yardstick alternate, medians in ms.

    A first round of both is not counted: it connects and loads libraries. Before each, it waits
    `rest` seconds: BLAS threads spin for a while after their work, and take the cores from the
    other side.
    """
    _round(client, work, Load(), 0.0)
    pairs = [_round(client, work, load, rest) for _ in rounds]
    ours, yardstick = (Measured.median(samples) for samples in zip(*pairs, strict=True))
    return Figure(work.name, "ms", ours, yardstick, work.bound)


def _round(client: Client, work: Work, load: Load, rest: float) -> tuple[float, float]:
    sleep(rest)
    ours, value = timed(partial(client.call, work.task, *work.args, timeout=TIMEOUT))
    sleep(rest)
    with load.watched():
        yardstick, expected = timed(work.yardstick)
    check(work.name, value, expected)
    return 1000 * ours, 1000 * yardstick + work.allowance


def impossible(work: Work, figure: Figure) -> list[str]:
    """Return a note if a figure is impossible: less time than a part of its work."""
    if work.allowance or figure.ratio >= 1:
        return []
    why = "is impossible, as ours does the yardstick's work and more; the machine was busy, or "
    return [f"{figure.name}: {figure.ratio:.2f} {why}the yardstick was slowed: measure again"]
