"""State of the Celery worker in this process, for the transport.

When a connection is lost or the worker stops, the transport has to know which messages' jobs are
running. In a program that is not a worker, none are.
"""

import sys
from typing import Any

from kombu.asynchronous import get_event_loop

#: Module in which Celery's worker keeps its requests.
_STATE_MODULE = "celery.worker.state"
_has_crashed = False
_is_worker = False


def note_worker() -> None:
    """Record that a worker starts in this process; the pool's processes inherit this."""
    global _is_worker  # noqa: PLW0603 - set once per process
    _is_worker = True


def is_worker() -> bool:
    """Return True if this process is a worker or one of its pool's processes."""
    return _is_worker


def is_stopping() -> bool:
    """Return True if this process is a worker that is shutting down."""
    state: Any = sys.modules.get(_STATE_MODULE)
    if state is None:
        return False
    # Called for each job, so written without a generator. Celery sets both to False, None or an
    # exit status, which may be 0.
    stop, terminate = state.should_stop, state.should_terminate
    return not ((stop is None or stop is False) and (terminate is None or terminate is False))


def note_crash() -> None:
    """Record that an error ended this process's worker; a message that it held may be the cause."""
    global _has_crashed  # noqa: PLW0603 - set once per process
    _has_crashed = True


def has_crashed() -> bool:
    """Return True if an error ended this process's worker."""
    return _has_crashed


def running() -> set[str]:
    """Return the delivery tags of running jobs."""
    state: Any = sys.modules.get(_STATE_MODULE)
    return set(_tags(_snapshot(state.active_requests))) if state else set()


def in_pool() -> dict[str, bool]:
    """Return the delivery tags of jobs passed to the pool; the value is True if one surely runs.

    On a lost connection, Celery's prefork pool drops jobs that it has not sent to a process yet. A
    thread pool, whose requests keep no result object, runs all of them.
    """
    state: Any = sys.modules.get(_STATE_MODULE)
    if not state:
        return {}
    passed = [each for each in _snapshot(state.reserved_requests) if each._apply_result is not None]  # noqa: SLF001 - Celery has no other name
    surely = {tag: request._apply_result() is None for tag, request in _tags(passed).items()}  # noqa: SLF001
    return dict.fromkeys(running(), False) | surely


def run_ready_callbacks() -> None:
    """Run the callbacks that are ready in the worker's event loop: acks of jobs that ended."""
    hub: Any = get_event_loop()
    for callback in hub._pop_ready() if hub else ():  # noqa: SLF001 - the loop has ended
        callback()


def _tags(requests: list[Any]) -> dict[str, Any]:
    return {request._message.delivery_tag: request for request in requests}  # noqa: SLF001 - the same


def _snapshot(requests: Any) -> list[Any]:
    """Return the requests of a set that other threads and the garbage collector change."""
    while True:
        try:
            return [*requests]
        except RuntimeError:  # changed during iteration
            continue
