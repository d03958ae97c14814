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


def running() -> set[str]:
    """Return the delivery tags of the messages whose jobs run now."""
    state: Any = sys.modules.get(_STATE)
    return _tags(state.active_requests) if state else set()


def in_pool() -> set[str]:
    """Return those of the jobs that run or were handed to the pool, which will run them."""
    state: Any = sys.modules.get(_STATE)
    if not state:
        return set()
    handed = (each for each in tuple(state.reserved_requests) if each._apply_result is not None)  # noqa: SLF001 - Celery has no other name
    return _tags(handed) | running()


def _tags(requests: Any) -> set[str]:
    return {request._message.delivery_tag for request in tuple(requests)}  # noqa: SLF001 - the same
