"""Bundles: a job that makes many calls of one task, for the cost of one job.

Its value is the outcome of the calls (`worker.bundle` makes it): the values of those that were
made, and which of them are jobs of their own, with ids by `call_id`. So is each call that fails,
retries, or returns what plain JSON cannot hold: what becomes of it is stored as of any job. So are
all calls, if the task is not plain or the bundle's process has died, and those behind a call that
takes long.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from celery.utils.imports import symbol_by_name

from celery_streams.errors import Unreadable

#: The task of bundles; its arguments are the rows of the calls, and by name the task that they are
#: calls of.
NAME = "celery_streams.bundle"
#: Calls of one bundle.
MAX_CALLS = 500
#: Seconds that a bundle is to take.
SECONDS = 0.01


def call_id(bundle_id: str, position: int) -> str:
    """Return the id of a call as a job of its own."""
    return f"{bundle_id}-{position}"


def shown(rows: Sequence[Any]) -> str:
    """Return how the arguments of a bundle are shown: by their number."""
    return f"({len(rows)} calls)"


def bundle_of(job_id: str) -> str:
    """Return the id of the bundle of which a job is a call, if it is one."""
    return job_id.rpartition("-")[0]


class Outcome(NamedTuple):
    """What a bundle's job returns; `bundle.run` makes it."""

    #: A value for each call, None for those that are jobs of their own.
    values: list[Any]
    #: The positions of these.
    own: list[int]
    #: Seconds that the other calls took.
    seconds: float


def outcome(stored: Any, count: int) -> Outcome:
    """Return the outcome of a bundle of `count` calls; raises Unreadable."""
    try:
        values, own, seconds = (stored[each] for each in Outcome._fields)
        missing = range(len(values), count)
        is_of_these = len(values) <= count and {*missing} <= {*own} <= {*range(count)}
        is_of_these &= {*map(type, own)} <= {int} and 0 <= seconds < math.inf
        read = Outcome([*values, *(None for _ in missing)], own, float(seconds))
    except (TypeError, ValueError, KeyError) as error:
        raise Unreadable(f"the outcome of a bundle is malformed: {error!r}") from None
    if not is_of_these:
        raise Unreadable("the outcome of a bundle is not of its calls")
    return read


def install(sender: Any, **_: Any) -> None:
    """Register the task of bundles with an app."""

    def bundle(self: Any, rows: Any, task: str) -> Any:
        """Make many calls of a task."""
        run = symbol_by_name("celery_streams.worker.bundle:run")  # a caller loads no worker
        return run(self, rows, task)

    sender.task(
        bundle,
        name=NAME,
        bind=True,
        shared=False,
        acks_late=True,
        reject_on_worker_lost=True,
        retry_on_worker_lost=False,
        rate_limit=0,
        autoretry_for=(),
        ignore_result=False,
        resultrepr_maxsize=64,
    )
