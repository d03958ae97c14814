"""The time of large values, from the call to the value, beside the work alone."""

from collections.abc import Callable, Iterable
from functools import partial
from operator import matmul
from time import sleep
from typing import Any, NamedTuple

from bench.calls import stopwatch, timed
from bench.figures import Figure, Measured
from bench.load import Load
from bench.values import check, factorial, operands, product
from callers.client import Client

SEED = 7


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


def of_factorial(n: int, bound: float, repeats: int = 1, allowance: float = 0.0) -> Work:
    """Return the work of a factorial."""
    name = f"factorial({n})" + (f", against + {allowance:g} ms" if allowance else "")
    yardstick = partial(factorial, n)
    return Work(name, "factorial.tasks.factorial", (n,), yardstick, bound, repeats, allowance)


def of_product(size: int, bound: float, repeats: int = 1) -> Work:
    """Return the work of a product of random matrices, which the worker generates."""
    yardstick = partial(product, size, size, SEED)
    name = f"mat_mul({size}, {size})"
    return Work(name, "mat_mul.tasks.mat_mul", (size, size, SEED), yardstick, bound, repeats)


def of_given(size: int, bound: float, repeats: int = 1) -> Work:
    """Return the work of a product of two matrices that the caller sends."""
    given = operands(size, size, SEED)
    name = f"multiply, {size} x {size} given"
    return Work(name, "mat_mul.tasks.multiply", given, partial(matmul, *given), bound, repeats)


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
    ours, value = timed(client, work.task, *work.args)
    sleep(rest)
    with load.watched():
        yardstick, expected = stopwatch(work.yardstick)
    check(work.name, value, expected)
    return ours, yardstick + work.allowance


def impossible(works: Iterable[Work], figures: Iterable[Figure]) -> list[str]:
    """Return a note for each figure that is impossible: less time than a part of its work."""
    return [
        f"{figure.name}: {figure.ratio:.2f} is impossible, as ours does the yardstick's work and "
        "more; the machine was busy, or the yardstick was slowed: measure again"
        for work, figure in zip(works, figures, strict=True)
        if not work.allowance and figure.ratio < 1
    ]
