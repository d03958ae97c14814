"""Tasks of the family `mat_mul`: products of matrices."""

from typing import Annotated, Any

import numpy as np
from celery import shared_task
from msgspec import Meta

from cluster import arguments
from cluster.values import matrices
from cluster.values.codec import NUMERIC_KINDS
from cluster.values.matrices import Matrix

Size = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0)]

#: Number of unneeded elements in a row of B from which the generator skips them; fewer are drawn
#: and dropped, which is faster, in blocks of about BLOCK_SIZE elements.
MIN_SKIPPED, BLOCK_SIZE = 1024, 8192


@shared_task
def mat_mul(m: Size, n: Size, seed: Seed | None = None) -> Matrix:
    """Return A @ B, float64 of shape (m, m), for random A (m x n) and B (n x m).

    `numpy.random.default_rng(seed)` draws A, then B, uniformly from [0, 1); without a seed every
    call has other operands. Raise TypeError if an argument is not an int, ValueError for a size
    below 1, a negative seed, or more than MAT_MUL_MAX_BYTES in total.
    """
    arguments.whole_number("m", m, minimum=1)
    arguments.whole_number("n", n, minimum=1)
    if seed is not None:
        arguments.whole_number("seed", seed, minimum=0)
    _check_bytes("m and n", matrices.needed_for_random(m, n))
    rng = np.random.default_rng(seed)
    a = rng.random((m, n))
    b = rng.random((n, m))
    return a @ b


@shared_task
def tile(m: Size, n: Size, seed: Seed, rows: list[int], columns: list[int]) -> Matrix:
    """Return rows [start, stop) by columns [start, stop) of `mat_mul(m, n, seed)`.

    Only the parts of A and B that it needs are generated. Raise TypeError and ValueError as
    `mat_mul` does, and ValueError for a range that is empty or exceeds m.
    """
    arguments.whole_number("m", m, minimum=1)
    arguments.whole_number("n", n, minimum=1)
    arguments.whole_number("seed", seed, minimum=0)
    first, last = _range("rows", rows, m)
    left, right = _range("columns", columns, m)
    height, width = last - first, right - left
    _check_bytes("a tile", 8 * (height * n + n * width + height * width))
    a = _rng_at(seed, first * n).random((height, n))
    b = _columns(_rng_at(seed, m * n), m, n, left, right)
    return np.asarray(a @ b)


@shared_task
def multiply(a: Any, b: Any) -> Any:
    """Return `numpy.matmul(a, b)`: a product of matrices, vectors, or stacks of matrices.

    An operand is an array of any numeric dtype, or nested lists of numbers. Raise TypeError
    for any other, ValueError for shapes that do not match, or more than MAT_MUL_MAX_BYTES in
    total, where an operand that numpy has to convert counts twice.
    """
    a, b = _operand("a", a), _operand("b", b)
    _check_bytes("a, b and a·b", matrices.needed(a, b, matrices.product_of(a, b)))
    with np.errstate(all="ignore"):  # an overflow is inf, without a warning
        product = np.matmul(a, b)
    # Python has no type for a single long double: return it as an array.
    return np.asarray(product) if product.dtype.char in "gG" else product


def _operand(name: str, value: Any) -> Matrix:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):  # lists of different lengths, or too deep
        array = None
    if array is None or array.dtype.kind not in NUMERIC_KINDS:
        raise TypeError(
            f"{name} must be an array of numbers or lists of equal lengths, not {_brief(value)}"
        )
    return array


def _brief(value: Any) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else arguments.brief(value)


def _check_bytes(name: str, needed: int) -> None:
    limit = matrices.max_bytes()
    if needed > limit:
        raise ValueError(
            f"{name} must need at most {limit} bytes (MAT_MUL_MAX_BYTES), "
            f"not {arguments.brief(needed)}: callers.tiled computes larger products in tiles"
        )


def _range(name: str, value: Any, end: int) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:  # noqa: PLR2004 - start and stop
        raise TypeError(f"{name} must be [start, stop], not {arguments.brief(value)}")
    start = arguments.whole_number(f"the start of {name}", value[0], minimum=0)
    stop = arguments.whole_number(f"the stop of {name}", value[1], minimum=start + 1)
    if stop > end:
        raise ValueError(
            f"{name} must stop at {end} (m) at the latest, not {arguments.brief(stop)}"
        )
    return start, stop


def _rng_at(seed: int, drawn: int) -> np.random.Generator:
    """Return numpy's generator after `drawn` doubles, each of which is one step of PCG64."""
    bits = np.random.PCG64(seed)
    bits.advance(drawn)
    return np.random.Generator(bits)


def _columns(rng: np.random.Generator, m: int, n: int, start: int, stop: int) -> Matrix:
    """Return columns [start, stop) of the next n x m matrix of the generator."""
    columns = np.empty((n, stop - start))
    skipped = m - (stop - start)
    if skipped < MIN_SKIPPED:
        height = max(1, BLOCK_SIZE // m)
        for top in range(0, n, height):
            block = rng.random((min(height, n - top), m))
            columns[top : top + height] = block[:, start:stop]
        return columns
    bits: Any = rng.bit_generator
    bits.advance(start)
    for row in columns:
        rng.random(out=row)
        bits.advance(skipped)
    return columns
