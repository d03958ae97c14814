"""What a product of two matrices will be, known before it is made: its shape, type and bytes."""

import math
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from cluster import arguments, settings

#: Bytes that operands and product may take together: MAT_MUL_MAX_BYTES can lower or
#: raise it. The default is just enough for 4000 x 4000.
MAX_BYTES = 384 * 1024 * 1024

Matrix = np.ndarray[Any, Any]


class Product(NamedTuple):
    """What a·b will be, and the bytes that one element of each of the three takes."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    #: An operand of another type than the product's is there a second time, converted.
    a_item: int
    b_item: int

    @property
    def nbytes(self) -> int:
        """The bytes of the product alone."""
        return math.prod(self.shape) * self.dtype.itemsize


def max_bytes() -> int:
    """Return how many bytes operands and product may take together at a worker."""
    return settings.integer("MAT_MUL_MAX_BYTES", MAX_BYTES)


def product_of(a: Matrix, b: Matrix) -> Product:
    """Return what `numpy.matmul(a, b)` will be.

    Raises ValueError, with both shapes, where there is no such product.
    """
    as_a, as_b, dtype = np.matmul.resolve_dtypes((a.dtype, b.dtype, None))
    return Product(
        _shape(a.shape, b.shape),
        dtype,
        a.dtype.itemsize + (as_a.itemsize if as_a != a.dtype else 0),
        b.dtype.itemsize + (as_b.itemsize if as_b != b.dtype else 0),
    )


def needed(a: Matrix, b: Matrix, product: Product) -> int:
    """Return the bytes that both operands and their product take together."""
    return a.size * product.a_item + b.size * product.b_item + product.nbytes


def needed_for_random(m: int, n: int) -> int:
    """Return the bytes that A (m x n), B (n x m) and A·B take together, all float64."""
    return 8 * (2 * m * n + m * m)


def _shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a product, by the rule of matmul's signature (n?,k),(k,m?)->(n?,m?)."""
    if a and b and a[-1] == b[-2 if len(b) > 1 else -1]:  # a number alone has no axis
        with suppress(ValueError):  # stacks that do not match
            stack = np.broadcast_shapes(a[:-2], b[:-2])
            return (*stack, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
    raise ValueError(
        f"a of shape {arguments.brief(a)} and b of shape {arguments.brief(b)} have no product"
    )
