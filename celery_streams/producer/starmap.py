"""Celery's `map`, `starmap` and `chunks`, with one task request for each job.

Celery makes one for each call of the task, which costs several times as much as a quick call.
"""

from collections.abc import Callable, Iterable
from inspect import getattr_static
from typing import Any

from celery import _state
from celery.app.task import Task
from celery.canvas import signature

_celery: Any = _state


#: A task class whose `__call__` adds nothing to the calls of a map lists it as `plain_calls`; in
#: those of a bundle, the request's `running` is true (worker/bundle.py).
PLAIN_CALLS = (Task.__call__,)


def install(sender: Any, **_: Any) -> None:
    """Replace the functions of an app's tasks `celery.map` and `celery.starmap`."""

    def map_(task: Any, it: Iterable[Any]) -> list[Any]:
        return values(task, ((item,) for item in it))

    def starmap(task: Any, it: Iterable[Iterable[Any]]) -> list[Any]:
        return values(task, it)

    def values(named: Any, calls: Iterable[Iterable[Any]]) -> list[Any]:
        task = signature(named, app=sender).type
        return _values(task, calls) if is_plain(task) else [task(*args) for args in calls]

    functions: dict[str, Callable[..., list[Any]]] = {"celery.map": map_, "celery.starmap": starmap}
    for name, function in functions.items():
        task = sender.tasks[name]
        # With automatic retries, `run` is Celery's wrapper.
        setattr(task, "_orig_run" if hasattr(task, "_orig_run") else "run", function)


def _values(task: Any, calls: Iterable[Iterable[Any]]) -> list[Any]:
    """Return what a task returns for each of some arguments; raises the first error."""
    values = []
    _celery._task_stack.push(task)  # noqa: SLF001 - as Celery's Task.__call__
    task.push_request(args=(), kwargs={})
    request, run = task.request, task.run
    try:
        for args in calls:
            request.args = tuple(args)
            values.append(run(*request.args))
    finally:
        task.pop_request()
        _celery._task_stack.pop()  # noqa: SLF001 - the same
    return values


def is_plain(task: Any) -> bool:
    """Return True if a task is an unbound function, which cannot change its request."""
    kind = type(task)
    is_function = isinstance(getattr_static(kind, "run"), staticmethod)
    return is_function and kind.__call__ in getattr(kind, "plain_calls", PLAIN_CALLS)
