"""Why a job is late: the state it is in, and the job that it waits for."""

from collections.abc import Iterator, Sequence
from time import monotonic, sleep
from typing import Any

from celery.result import AsyncResult, ResultSet
from celery.states import PENDING, PROPAGATE_STATES, STARTED

from cluster.connections import broker

#: Seconds between two tries to read a result while Redis is unreachable.
RETRY_INTERVAL = 0.2
#: Seconds for workers to answer, and to report that they run a job.
ANSWER_TIMEOUT = 1.2


def why_late(result: "AsyncResult[Any]", name: str, timeout: float) -> str:
    """Return one sentence on a job that gave no result within `timeout` seconds."""
    late = f"{name} gave no result within {timeout:g} s"
    app: Any = result.app
    try:
        job = _first_unfinished(result)
        if _runs(job):
            return f"{late}: job {job.id} still runs{_place(job)}"
        if name not in app.conf.task_routes[0]:
            return (
                f"{late}: nothing is known of job {job.id}, which waits in a queue or for its "
                "time, was never submitted, or ended so long ago that its result has expired"
            )
        queue = app.amqp.router.route({}, name)["queue"].name
        answers = app.control.inspect(timeout=ANSWER_TIMEOUT).active_queues() or {}
    except (OSError, *broker.UNREACHABLE_ERRORS) as error:
        return f"{late}: the broker went away ({error})"
    workers = [worker for worker, queues in answers.items() if queue in _names(queues)]
    if not workers:
        return f"{late}: no worker consumes the queue {queue!r}, where job {job.id} stays"
    return f"{late}: job {job.id} waits in the queue {queue!r} of {len(workers)} worker(s)"


def jobs_of(result: Any) -> Iterator["AsyncResult[Any]"]:
    """Yield the jobs of a result."""
    if isinstance(result, ResultSet):
        for member in result.results or ():
            yield from jobs_of(member)
    else:
        yield result


def failed_before(result: Any) -> "AsyncResult[Any] | None":
    """Return a failed job among those of a result and those before it; None without one.

    Celery fails the rest of a chain, but not a group at its end, nor the chord around it.
    """
    if result is None:
        return None
    if isinstance(result, ResultSet):
        failed = (failed_before(member) for member in result.results or ())
        return next((job for job in failed if job), None) or failed_before(result.parent)
    return result if result.state in PROPAGATE_STATES else failed_before(result.parent)


def _place(job: "AsyncResult[Any]") -> str:
    """Return where a job runs, if that is known: a task may set another state."""
    info: Any = job.info
    return f" on {info['hostname']}" if isinstance(info, dict) and "hostname" in info else ""


def _runs(job: "AsyncResult[Any]") -> bool:
    """Return True if a job runs; its worker reports it up to a second after the start."""
    deadline = monotonic() + ANSWER_TIMEOUT
    while True:
        state: str = job.state
        if state != PENDING or monotonic() >= deadline:
            return state == STARTED
        sleep(RETRY_INTERVAL)


def _first_unfinished(result: "AsyncResult[Any]") -> "AsyncResult[Any]":
    """Return the job that all others wait for: a chain's result is its last job's."""
    parent: Any = result.parent
    while parent is not None and not parent.ready():
        result = next((job for job in jobs_of(parent) if not job.ready()), result)
        parent = result.parent
    return result


def _names(queues: Sequence[Any]) -> set[str]:
    return {queue["name"] for queue in queues}
