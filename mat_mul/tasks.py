"""What the family `mat_mul` does: products of matrices."""

from typing import Any

import numpy as np
from celery import shared_task

from cluster import limits

#: Bytes that operands and product may take together: MAT_MUL_MAX_BYTES can lower or
#: raise it. The default is just enough for 4000 x 4000.
MAX_BYTES = 384 * 1024 * 1024


@shared_task
def mat_mul(m: int, n: int, seed: int | None = None) -> "np.ndarray[Any, Any]":
    """Return A @ B, float64 of shape (m, m), for random A (m x n) and B (n x m).

    The elements are uniform on [0, 1): A, then B, of `numpy.random.default_rng(seed)`.
    Without a seed every call has other operands. Raises TypeError for anything but ints,
    ValueError for sizes below 1, a negative seed, or more than MAT_MUL_MAX_BYTES in all.
    """
    limits.whole_number("m", m, least=1)
    limits.whole_number("n", n, least=1)
    if seed is not None:
        limits.whole_number("seed", seed, least=0)
    most = limits.setting("MAT_MUL_MAX_BYTES", MAX_BYTES)
    needed = 8 * (2 * m * n + m * m)
    if needed > most:
        raise ValueError(
            f"m and n must need at most {most} bytes (MAT_MUL_MAX_BYTES), "
            f"not {limits.brief(needed)}"
        )
    rng = np.random.default_rng(seed)
    a = rng.random((m, n))
    b = rng.random((n, m))
    return a @ b
