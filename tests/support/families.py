"""The families' examples, which drive the tests: a new family needs no test of its own."""

import hashlib
from importlib import import_module
from typing import Any

import numpy as np

from celeryconfig import families
from cluster.arguments import brief
from cluster.examples import BadExample, Digest, Example

#: The family of which the others are copies, except for their tasks and requirements.
REFERENCE = "add"
FAMILIES = tuple(families)
#: Tasks whose good example needs another job first: tests/local/test_canvas.py has it.
ABOUT_JOBS = {"add.tasks.error_of"}


def _collected(name: str) -> list[Any]:
    """Return the families' examples, with the full names of their tasks."""
    return [
        example._replace(task=f"{family}.tasks.{example.task}")
        for family in FAMILIES
        for example in getattr(import_module(f"{family}.examples"), name)
    ]


#: Jobs that a worker must answer with a value, or with an error.
JOBS: list[Example] = _collected("EXAMPLES")
BAD_JOBS: list[BadExample] = _collected("BAD_EXAMPLES")


def check(job: Example, value: Any) -> None:
    """Fail if `value` is not the job's value, or of another type."""
    said = f"{job}: its example says {brief(job.value)}, and the task returned {brief(value)}"
    if isinstance(job.value, Digest):
        assert type(value) is int
        assert digest(value) == job.value, said
    elif isinstance(job.value, np.ndarray):
        assert value.dtype == job.value.dtype, said
        np.testing.assert_allclose(value, job.value, rtol=1e-12)
    else:
        if isinstance(value, np.generic):  # it is sent as Python's
            value = value.item()
        assert type(value) is type(job.value), said
        assert value == job.value, said


def digest(value: int) -> str:
    """Return the SHA-256 of a number's decimal text."""
    import gmpy2

    return hashlib.sha256(gmpy2.mpz(value).digits().encode()).hexdigest()


def function(task: str) -> Any:
    """Return the function of a task, which can be called without a broker."""
    module, name = task.rsplit(".", 1)
    return getattr(import_module(module), name)
