"""The same work in one process: the yardsticks, and the expected values."""

import os
from typing import TYPE_CHECKING, Any

import gmpy2

from cluster.errors import ClusterError

if TYPE_CHECKING:
    import numpy as np

#: Variables that change numpy's BLAS, in this process and in its children.
BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS")
#: Of the random matrices.
SEED = 7


class WrongValue(ClusterError):
    """A value of the cluster differs from that of the same work in one process."""


def leave_blas_alone() -> None:
    """Remove the variables that change numpy's BLAS; call it before numpy is imported."""
    for variable in BLAS_VARIABLES:
        os.environ.pop(variable, None)


def operands(m: int, n: int, seed: int) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Return the operands of mat_mul(m, n, seed)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.random((m, n)), rng.random((n, m))


def product(m: int, n: int, seed: int) -> "np.ndarray[Any, Any]":
    """Return A @ B, float64 of shape (m, m), for the operands of mat_mul(m, n, seed)."""
    import numpy as np

    return np.asarray(np.matmul(*operands(m, n, seed)))


def check(name: str, value: Any, expected: Any) -> None:
    """Raise WrongValue unless `value` is as expected; a matrix may differ in its last digits."""
    import numpy as np

    if isinstance(expected, int | gmpy2.mpz):
        is_right = type(value) is int and value == expected
    else:
        is_right = (
            isinstance(value, np.ndarray)
            and (value.dtype, value.shape) == (expected.dtype, expected.shape)
            # The first is much faster, and usually true.
            and (np.array_equal(value, expected) or np.allclose(value, expected))
        )
    if not is_right:
        raise WrongValue(f"{name} gave a wrong value")
