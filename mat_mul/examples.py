"""Examples of the tasks of `mat_mul`, and of arguments that they refuse."""

from typing import Any

import numpy as np

from cluster.examples import BadExample, Example


def product(m: int, n: int, seed: int) -> "np.ndarray[Any, Any]":
    """Return the value of mat_mul(m, n, seed), computed locally."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.random((m, n)) @ rng.random((n, m)))


def array(rows: str, dtype: Any) -> "np.ndarray[Any, Any]":
    """Return a matrix, written as "1 2; 3 4"."""
    return np.array([row.split() for row in rows.split(";")]).astype(dtype)


EXAMPLES = [
    Example("mat_mul", (1, 1, 0), product(1, 1, 0)),
    Example("mat_mul", (20, 30, 7), product(20, 30, 7)),
    Example("mat_mul", (300, 200), product(300, 200, 7), {"seed": 7}),
    Example("tile", (20, 30, 7, [0, 20], [0, 20]), product(20, 30, 7)),
    Example("tile", (20, 30, 7, (5, 12), (19, 20)), product(20, 30, 7)[5:12, 19:20]),
    Example("tile", (3000, 4, 7, [9, 11], [6, 900]), product(3000, 4, 7)[9:11, 6:900]),
    Example("multiply", ([[1, 2], [3, 4]], [[5, 6], [7, 8]]), array("19 22; 43 50", int)),
    Example("multiply", ([1, 2, 3], [4, 5, 6]), 32),
    Example("multiply", ([True, False], [0.5, 1]), 0.5),
    Example("multiply", ([[1j]], array("2", np.float32)), array("2j", complex)),
    Example("multiply", (array("1 2; 3 4", np.uint8), [1, -1]), np.array([-1, -1])),
    Example(
        "multiply",
        (np.ones((5, 1, 2, 3)), np.ones((4, 3, 2))),
        np.full((5, 4, 2, 2), 3.0),
    ),
    Example("multiply", (array("1 nan", float), array("1; 1", float)), array("nan", float)),
    Example("multiply", (np.ones((2, 0)), np.ones((0, 3))), np.zeros((2, 3))),
    Example("multiply", (np.ones((0, 2)), np.ones((2, 3))), np.zeros((0, 3))),
]

BAD_EXAMPLES = [
    BadExample("mat_mul", (0, 5), ValueError, "m must be at least 1, not 0"),
    BadExample("mat_mul", (5, -5), ValueError, "n must be at least 1, not -5"),
    BadExample("mat_mul", (5, 2.0), TypeError, "n must be a whole number"),
    BadExample("mat_mul", (5, True), TypeError, "not True"),
    BadExample("mat_mul", (10**5, 10**5), ValueError, "MAT_MUL_MAX_BYTES"),
    BadExample("mat_mul", (5, 5, -1), ValueError, "seed must be at least 0"),
    BadExample("mat_mul", (5, 5, "x"), TypeError, "seed must be a whole number"),
    BadExample("tile", (5, 5, None, [0, 1], [0, 1]), TypeError, "seed must be a whole"),
    BadExample("tile", (5, 5, 7, 3, [0, 1]), TypeError, "rows must be [start, stop]"),
    BadExample("tile", (5, 5, 7, [0, 1], [0]), TypeError, "columns must be [start, stop]"),
    BadExample("tile", (5, 5, 7, [0, 6], [0, 1]), ValueError, "must stop at 5 (m)"),
    BadExample("tile", (5, 5, 7, [-1, 2], [0, 1]), ValueError, "must be at least 0"),
    BadExample("tile", (5, 5, 7, [2, 2], [0, 1]), ValueError, "must be at least 3"),
    BadExample("tile", (5, 10**8, 7, [0, 1], [0, 1]), ValueError, "MAT_MUL_MAX_BYTES"),
    BadExample("multiply", ("12", [1]), TypeError, "a must be an array of numbers"),
    BadExample("multiply", ([[1]], None), TypeError, "b must be an array of numbers"),
    BadExample("multiply", ([[1, 2], [3]], [[1]]), TypeError, "not [[1, 2], [3]]"),
    BadExample("multiply", ([1, "2"], [1, 2]), TypeError, "not [1, '2']"),
    BadExample("multiply", ([10**30], [1]), TypeError, "a must be an array of numbers"),
    BadExample("multiply", ({"a": 1}, [1]), TypeError, "a must be an array of numbers"),
    BadExample("multiply", ([[1, 2]], [[3, 4]]), ValueError, "(1, 2) and b of shape (1, 2)"),
    BadExample("multiply", (3, [[1]]), ValueError, "a of shape () and b of shape (1, 1)"),
    BadExample("multiply", (np.ones((2, 1, 1)), np.ones((3, 1, 1))), ValueError, "(2, 1, 1)"),
    BadExample(
        "multiply",
        (np.ones((8000, 1)), np.ones((1, 8000))),
        ValueError,
        "MAT_MUL_MAX_BYTES",
    ),
]
