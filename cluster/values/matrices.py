"""Shape, dtype and memory of a matrix product, known before it is computed."""

import math
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from cluster import arguments, settings

#: Default of MAT_MUL_MAX_BYTES, the memory for operands and product in bytes: just enough
#: for 4000 x 4000.
MAX_BYTES = 384 * 1024 * 1024

Matrix = np.ndarray[Any, Any]


class Product(NamedTuple):
    """Shape and dtype of a·b, and the bytes per element of a and b while it is computed."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    #: An operand of another dtype than the product's counts twice: numpy converts a copy.
    a_item: int
    b_item: int

    @property
    def nbytes(self) -> int:
        """Bytes of the product alone."""
        return math.prod(self.shape) * self.dtype.itemsize


def max_bytes() -> int:
    """Return MAT_MUL_MAX_BYTES: the bytes that operands and product may take in a worker."""
    return settings.integer("MAT_MUL_MAX_BYTES", MAX_BYTES)


def product_of(a: Matrix, b: Matrix) -> Product:
    """Return shape, dtype and element sizes of `numpy.matmul(a, b)`.

    Raise ValueError, naming both shapes, if they do not match.
    """
    as_a, as_b, dtype = np.matmul.resolve_dtypes((a.dtype, b.dtype, None))
    return Product(
        _shape(a.shape, b.shape),
        dtype,
        a.dtype.itemsize + (as_a.itemsize if as_a != a.dtype else 0),
        b.dtype.itemsize + (as_b.itemsize if as_b != b.dtype else 0),
    )


def needed(a: Matrix, b: Matrix, product: Product) -> int:
    """Return the bytes that `a`, `b` and their product take together."""
    return a.size * product.a_item + b.size * product.b_item + product.nbytes


def needed_for_random(m: int, n: int) -> int:
    """Return the bytes that A (m x n), B (n x m) and A·B take together, all float64."""
    return 8 * (2 * m * n + m * m)


def _shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a product, by matmul's signature (n?,k),(k,m?)->(n?,m?)."""
    if a and b and a[-1] == b[-2 if len(b) > 1 else -1]:  # a scalar has no axis
        with suppress(ValueError):  # stacks of different shapes
            stack = np.broadcast_shapes(a[:-2], b[:-2])
            return (*stack, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
    raise ValueError(
        f"a of shape {arguments.brief(a)} and b of shape {arguments.brief(b)} have no product"
    )
