"""Tasks that `callers.testing.run` runs beside those of the families; they have no route."""

from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Reject

from add.tasks import add


class Odd(Exception):
    """An error that its text alone cannot make."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


@shared_task
def echo(value: Any) -> list[Any]:
    """Return the name of the value's type as it arrived, and the value."""
    return [type(value).__name__, value]


@shared_task
def pair() -> Any:
    """Return a tuple, and a mapping whose key is no text."""
    return (1, {2: 3})


@shared_task
def unsendable() -> object:
    """Return what JSON has no form for."""
    return object()


@shared_task
def odd() -> None:
    """Raise an error with other arguments than its text."""
    raise Odd(7, "odd")


@shared_task
def no_result(kind: str) -> None:
    """End without a result."""
    raise {"Ignore": Ignore, "Reject": Reject}[kind]("not today")


@shared_task(bind=True)
def about(self: Any) -> list[Any]:
    """Return what the request says of itself."""
    return [self.request.id, self.request.retries, self.request.headers]


@shared_task(bind=True)
def again(self: Any, value: Any, times: int, limit: int | None = None) -> Any:
    """Retry in an hour, `times` times, then return the value and its type."""
    if self.request.retries < times:
        raise self.retry(countdown=3600, max_retries=limit)
    return [type(value).__name__, value]


@shared_task
def submits(what: str) -> Any:
    """Submit a job or read a result."""
    if what == "job":
        return add.delay(4, 6)
    if what == "result":
        return echo.AsyncResult("an id").get(timeout=1, disable_sync_subtasks=False)
    return (add.s(4, 6) | add.s(1)).delay()
