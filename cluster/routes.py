"""Routing of jobs to queues; a job that no worker would ever run is rejected at its caller."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cluster import arguments
from cluster.errors import UnknownTask

#: Longest name to suggest a similar one for, in characters, and least similarity, by `difflib`.
MAX_MISSPELT = 200
MIN_SIMILARITY = 0.75

Router = Callable[..., Mapping[str, Any] | None]


def route_celery_tasks(routes: Mapping[str, Any], default: Mapping[str, Any]) -> Router:
    """Return a router for Celery's built-in tasks, such as `celery.starmap`.

    `map`, `starmap` and `chunks` call another task in their own process, so they follow its
    route. The rest need no family's code and take the `default` route.
    """

    def route(
        name: str, args: object, kwargs: Any, options: Mapping[str, Any], task: object = None
    ) -> Mapping[str, Any] | None:
        if not name.startswith("celery.") or "queue" in options:
            return None
        inner = (kwargs or {}).get("task")
        if inner is None:
            return default
        if inner["task"] not in routes:
            raise unknown_task(inner["task"], routes)
        return dict(routes[inner["task"]])

    return route


def reject_unknown_tasks(routes: Mapping[str, Any]) -> Router:
    """Return the last router of `task_routes`, which raises UnknownTask.

    A job with an explicit queue passes: Celery checks that queue itself.
    """

    def reject(
        name: str, args: object, kwargs: object, options: Mapping[str, Any], task: object = None
    ) -> None:
        if "queue" not in options:
            raise unknown_task(name, routes)

    return reject


def unknown_task(name: Any, known: Iterable[str]) -> UnknownTask:
    """Return the error for a task without a route, suggesting the most similar known name."""
    near = nearest(name, known) if isinstance(name, str) else None
    hint = f"did you mean {near!r}?" if near else f"known tasks: {', '.join(sorted(known))}"
    return UnknownTask(f"no task is called {arguments.brief(name)}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is probably a misspelling of, or None."""
    if len(name) > MAX_MISSPELT:
        return None
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=MIN_SIMILARITY) or [
        each for each in known if each.endswith(f".{name}")
    ]
    return close[0] if close else None
