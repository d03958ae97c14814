"""The table of families that drives the tests: a new family needs rows here, but no test."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from cluster.codec import pack

#: The family of which the others are copies, except for their tasks and requirements.
REFERENCE = "add"
FAMILIES = ("add", "factorial", "mat_mul")

#: SHA-256 of the decimal text of n!.
FACTORIAL_DIGESTS = {
    20_000: "eaae0cdb4ba46ca603da90766b63f69dd6cbd25340725ce15ba373d99aea5cf6",
    100_000: "820239691ef9b4887957093bb745a1ac33d3184b272db3e9a0d0a37062a13399",
}


class Job(NamedTuple):
    """A job and its expected value, or a digest if that is too long."""

    task: str
    args: tuple[Any, ...]
    value: Any
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never written to

    def __str__(self) -> str:
        return _label(self.task, self.args)


class BadJob(NamedTuple):
    """A job that must fail with an error of this type, whose one line contains `words`."""

    task: str
    args: tuple[Any, ...]
    error: type[Exception]
    words: str

    def __str__(self) -> str:
        return _label(self.task, self.args)


def _label(task: str, args: tuple[Any, ...]) -> str:
    shown = ",".join(repr(pack(arg)).replace(" ", "") for arg in args)
    return f"{task.rsplit('.', 1)[1]}({shown})"


def product(m: int, n: int, seed: int) -> "np.ndarray[Any, Any]":
    """Return the value of mat_mul(m, n, seed), computed locally."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.random((m, n)) @ rng.random((n, m)))


def array(rows: str, dtype: Any) -> "np.ndarray[Any, Any]":
    """Return a matrix, written as "1 2; 3 4"."""
    return np.array([row.split() for row in rows.split(";")]).astype(dtype)


JOBS = [
    Job("add.tasks.add", (4, 6), 10),
    Job("add.tasks.add", (-1, 0.5), -0.5),
    Job("add.tasks.add", (1 + 2j, 1), 2 + 2j),
    Job("add.tasks.add", (10**5000, -1), 10**5000 - 1),
    Job("add.tasks.tsum", ([1, 2.5, 3],), 6.5),
    Job("add.tasks.tsum", ([],), 0),
    Job("add.tasks.tsum", ([10**5000, 1],), 10**5000 + 1),
    Job("add.tasks.longtime_add", (4, 6), 10, {"seconds": 0.1}),
    Job("add.tasks.unsteady_add", (4, 6, 0), 10),
    Job("factorial.tasks.factorial", (0,), 1),
    Job("factorial.tasks.factorial", (20,), 2432902008176640000),
    Job("factorial.tasks.factorial", (20_000,), FACTORIAL_DIGESTS[20_000]),
    Job("factorial.tasks.factorial", (100_000,), FACTORIAL_DIGESTS[100_000]),
    Job("mat_mul.tasks.mat_mul", (1, 1, 0), product(1, 1, 0)),
    Job("mat_mul.tasks.mat_mul", (20, 30, 7), product(20, 30, 7)),
    Job("mat_mul.tasks.mat_mul", (300, 200), product(300, 200, 7), {"seed": 7}),
    Job("mat_mul.tasks.tile", (20, 30, 7, [0, 20], [0, 20]), product(20, 30, 7)),
    Job("mat_mul.tasks.tile", (20, 30, 7, (5, 12), (19, 20)), product(20, 30, 7)[5:12, 19:20]),
    Job("mat_mul.tasks.tile", (3000, 4, 7, [9, 11], [6, 900]), product(3000, 4, 7)[9:11, 6:900]),
    Job("mat_mul.tasks.multiply", ([[1, 2], [3, 4]], [[5, 6], [7, 8]]), array("19 22; 43 50", int)),
    Job("mat_mul.tasks.multiply", ([1, 2, 3], [4, 5, 6]), 32),
    Job("mat_mul.tasks.multiply", ([True, False], [0.5, 1]), 0.5),
    Job("mat_mul.tasks.multiply", ([[1j]], array("2", np.float32)), array("2j", complex)),
    Job("mat_mul.tasks.multiply", (array("1 2; 3 4", np.uint8), [1, -1]), np.array([-1, -1])),
    Job(
        "mat_mul.tasks.multiply",
        (np.ones((5, 1, 2, 3)), np.ones((4, 3, 2))),
        np.full((5, 4, 2, 2), 3.0),
    ),
    Job(
        "mat_mul.tasks.multiply", (array("1 nan", float), array("1; 1", float)), array("nan", float)
    ),
    Job("mat_mul.tasks.multiply", (np.ones((2, 0)), np.ones((0, 3))), np.zeros((2, 3))),
    Job("mat_mul.tasks.multiply", (np.ones((0, 2)), np.ones((2, 3))), np.zeros((0, 3))),
]

#: Tasks whose good example needs another job first: tests/local/test_canvas.py has it.
ABOUT_JOBS = {"add.tasks.error_of"}

#: Jobs that every worker must answer with an error.
BAD_JOBS = [
    BadJob("add.tasks.add", ("4", 6), TypeError, "x must be a number, not '4'"),
    BadJob("add.tasks.add", (True, 6), TypeError, "x must be a number, not True"),
    BadJob("add.tasks.add", (4, None), TypeError, "y must be a number, not None"),
    BadJob("add.tasks.add", (4,), TypeError, "missing 1 required positional argument"),
    BadJob("add.tasks.add", (4, 6, 7), TypeError, "takes 2 positional arguments"),
    BadJob("add.tasks.add", (10**400, 0.5), OverflowError, "too large"),
    BadJob("add.tasks.tsum", (7,), TypeError, "numbers must be a list, not 7"),
    BadJob("add.tasks.tsum", ([1, "2"],), TypeError, "numbers[1] must be a number"),
    BadJob("add.tasks.longtime_add", (1, 2, -1), ValueError, "MAX_WAIT"),
    BadJob("add.tasks.longtime_add", (1, 2, 1e9), ValueError, "MAX_WAIT"),
    BadJob("add.tasks.longtime_add", (1, 2, float("nan")), ValueError, "not nan"),
    BadJob("add.tasks.unsteady_add", (4, 6, -1), ValueError, "failures must be at least 0"),
    BadJob("add.tasks.error_of", (7,), TypeError, "job_id must be a string, not 7"),
    BadJob("factorial.tasks.factorial", (-1,), ValueError, "n must be at least 0, not -1"),
    BadJob("factorial.tasks.factorial", (2.5,), TypeError, "n must be a whole number, not 2.5"),
    BadJob("factorial.tasks.factorial", (float("nan"),), TypeError, "not nan"),
    BadJob("factorial.tasks.factorial", (True,), TypeError, "not True"),
    BadJob("factorial.tasks.factorial", ("7",), TypeError, "not '7'"),
    BadJob("factorial.tasks.factorial", (1_000_001,), ValueError, "FACTORIAL_MAX_N"),
    BadJob("factorial.tasks.factorial", (10**6000,), ValueError, "not an integer of 19932 bits"),
    BadJob("mat_mul.tasks.mat_mul", (0, 5), ValueError, "m must be at least 1, not 0"),
    BadJob("mat_mul.tasks.mat_mul", (5, -5), ValueError, "n must be at least 1, not -5"),
    BadJob("mat_mul.tasks.mat_mul", (5, 2.0), TypeError, "n must be a whole number"),
    BadJob("mat_mul.tasks.mat_mul", (5, True), TypeError, "not True"),
    BadJob("mat_mul.tasks.mat_mul", (10**5, 10**5), ValueError, "MAT_MUL_MAX_BYTES"),
    BadJob("mat_mul.tasks.mat_mul", (5, 5, -1), ValueError, "seed must be at least 0"),
    BadJob("mat_mul.tasks.mat_mul", (5, 5, "x"), TypeError, "seed must be a whole number"),
    BadJob("mat_mul.tasks.tile", (5, 5, None, [0, 1], [0, 1]), TypeError, "seed must be a whole"),
    BadJob("mat_mul.tasks.tile", (5, 5, 7, 3, [0, 1]), TypeError, "rows must be [start, stop]"),
    BadJob(
        "mat_mul.tasks.tile", (5, 5, 7, [0, 1], [0]), TypeError, "columns must be [start, stop]"
    ),
    BadJob("mat_mul.tasks.tile", (5, 5, 7, [0, 6], [0, 1]), ValueError, "must stop at 5 (m)"),
    BadJob("mat_mul.tasks.tile", (5, 5, 7, [-1, 2], [0, 1]), ValueError, "must be at least 0"),
    BadJob("mat_mul.tasks.tile", (5, 5, 7, [2, 2], [0, 1]), ValueError, "must be at least 3"),
    BadJob("mat_mul.tasks.tile", (5, 10**8, 7, [0, 1], [0, 1]), ValueError, "MAT_MUL_MAX_BYTES"),
    BadJob("mat_mul.tasks.multiply", ("12", [1]), TypeError, "a must be an array of numbers"),
    BadJob("mat_mul.tasks.multiply", ([[1]], None), TypeError, "b must be an array of numbers"),
    BadJob("mat_mul.tasks.multiply", ([[1, 2], [3]], [[1]]), TypeError, "not [[1, 2], [3]]"),
    BadJob("mat_mul.tasks.multiply", ([1, "2"], [1, 2]), TypeError, "not [1, '2']"),
    BadJob("mat_mul.tasks.multiply", ([10**30], [1]), TypeError, "a must be an array of numbers"),
    BadJob("mat_mul.tasks.multiply", ({"a": 1}, [1]), TypeError, "a must be an array of numbers"),
    BadJob(
        "mat_mul.tasks.multiply", ([[1, 2]], [[3, 4]]), ValueError, "(1, 2) and b of shape (1, 2)"
    ),
    BadJob("mat_mul.tasks.multiply", (3, [[1]]), ValueError, "a of shape () and b of shape (1, 1)"),
    BadJob(
        "mat_mul.tasks.multiply", (np.ones((2, 1, 1)), np.ones((3, 1, 1))), ValueError, "(2, 1, 1)"
    ),
    BadJob(
        "mat_mul.tasks.multiply",
        (np.ones((8000, 1)), np.ones((1, 8000))),
        ValueError,
        "MAT_MUL_MAX_BYTES",
    ),
]


def check(job: Job, value: Any) -> None:
    """Fail if `value` is not the job's value, or of another type."""
    if isinstance(job.value, str):
        assert type(value) is int
        assert digest(value) == job.value
    elif isinstance(job.value, np.ndarray):
        assert value.dtype == job.value.dtype
        np.testing.assert_allclose(value, job.value, rtol=1e-12)
    else:
        if isinstance(value, np.generic):  # it is sent as Python's
            value = value.item()
        assert type(value) is type(job.value)
        assert value == job.value


def digest(value: int) -> str:
    """Return the SHA-256 of a number's decimal text."""
    import gmpy2

    return hashlib.sha256(gmpy2.mpz(value).digits().encode()).hexdigest()
