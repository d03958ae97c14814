"""What a Celery worker in this process does with the messages it was given.

A transport knows messages only; but where its connection is lost, or its worker ends, it has
to know which of them are in work. In any other program the answer is: none.
"""

import sys
from typing import Any

#: Where Celery's worker keeps its requests.
_STATE = "celery.worker.state"


def is_stopping() -> bool:
    """Tell whether a worker runs in this process, and was told to stop."""
    state: Any = sys.modules.get(_STATE)
    return state is not None and any(
        status is not None and status is not False
        for status in (state.should_stop, state.should_terminate)
    )


def in_pool() -> dict[str, Any]:
    """Return the requests that run or were handed to the pool, by their delivery tags."""
    state: Any = sys.modules.get(_STATE)
    if not state:
        return {}
    handed = [each for each in _snapshot(state.reserved_requests) if each._apply_result is not None]  # noqa: SLF001 - Celery has no other name
    return {
        request._message.delivery_tag: request  # noqa: SLF001 - the same
        for request in (*handed, *_snapshot(state.active_requests))
    }


def is_dropped(request: Any) -> bool:
    """Tell whether the pool forgot a request, as prefork does with what it had not sent yet.

    A pool of threads keeps nothing that tells, and runs whatever it was given.
    """
    result = request._apply_result() if request._apply_result is not None else None  # noqa: SLF001
    return result is not None and not getattr(result, "_accepted", True)


def _snapshot(requests: Any) -> list[Any]:
    """Return the requests of a set that other threads, and the garbage collector, change."""
    while True:
        try:
            return [*requests]
        except RuntimeError:  # it did just now
            continue
