"""Celery's `map` and `starmap`, and so `chunks`, at what the tasks that they call cost.

Celery makes a request for each call of the task, which takes eight times as long as a quick one.
Here the calls of a job share one request, which tells of the call under way.
"""

from collections.abc import Iterable
from inspect import getattr_static
from typing import Any

from celery import _state
from celery.canvas import signature

from cluster.task import Task

_celery: Any = _state


def install(sender: Any, **_: Any) -> None:
    """Have an app's tasks `celery.map` and `celery.starmap` call other tasks so."""

    def map_(task: Any, it: Iterable[Any]) -> list[Any]:
        return _values(signature(task, app=sender).type, ((item,) for item in it))

    def starmap(task: Any, it: Iterable[Iterable[Any]]) -> list[Any]:
        return _values(signature(task, app=sender).type, it)

    for name, function in (("celery.map", map_), ("celery.starmap", starmap)):
        task = sender.tasks[name]
        # Where errors are retried, `run` is Celery's, around this.
        setattr(task, "_orig_run" if hasattr(task, "_orig_run") else "run", function)


def _values(task: Any, calls: Iterable[Iterable[Any]]) -> list[Any]:
    """Return what a task gives for each of some arguments; raises the first error."""
    if not _is_plain(task):
        return [task(*args) for args in calls]
    values = []
    _celery._task_stack.push(task)  # noqa: SLF001 - as Celery's Task.__call__ does
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


def _is_plain(task: Any) -> bool:
    """Tell whether a task is a function that is not given its task, and so no request to change."""
    kind = type(task)
    return kind.__call__ is Task.__call__ and isinstance(getattr_static(kind, "run"), staticmethod)
