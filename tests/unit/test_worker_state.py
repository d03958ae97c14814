"""Celery's marks of a worker that stops: an exit status, or None or False otherwise."""

from typing import Any

import pytest
from celery.worker import state

from celery_streams import worker_state


@pytest.mark.parametrize(
    ("stop", "terminate", "expected"),
    [
        (None, None, False),
        (False, False, False),
        (0, None, True),
        (True, None, True),
        (None, 0, True),
        (False, True, True),
        (1, 1, True),
    ],
)
def test_a_status_of_zero_is_one(
    stop: Any, terminate: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "should_stop", stop)
    monkeypatch.setattr(state, "should_terminate", terminate)

    assert worker_state.is_stopping() is expected
