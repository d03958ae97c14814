"""Which queue a job goes to; one that no worker would ever run is refused at its submitter."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cluster import arguments
from cluster.errors import UnknownTask

#: Characters of a name that is compared with others, and how alike a misprint is.
MAX_MISPRINT = 200
MISPRINT = 0.75

Router = Callable[..., Mapping[str, Any] | None]


def celerys_own(routes: Mapping[str, Any], others: Mapping[str, Any]) -> Router:
    """Return a router for the tasks that Celery brings: `celery.starmap` and its like.

    `map`, `starmap` and `chunks` run another task in their own process, so they go where
    that one goes. The rest, which need no family's code, go to `others`.
    """

    def route(
        name: str, args: object, kwargs: Any, options: Mapping[str, Any], task: object = None
    ) -> Mapping[str, Any] | None:
        if not name.startswith("celery.") or "queue" in options:
            return None
        inner = (kwargs or {}).get("task")
        if inner is None:
            return others
        if inner["task"] not in routes:
            raise unknown_task(inner["task"], routes)
        return dict(routes[inner["task"]])

    return route


def refuse_all_but(routes: Mapping[str, Any]) -> Router:
    """Return the last router of `task_routes`: it raises UnknownTask for other names.

    A job whose sender named a queue passes: Celery checks that queue itself.
    """

    def refuse(
        name: str, args: object, kwargs: object, options: Mapping[str, Any], task: object = None
    ) -> None:
        if "queue" not in options:
            raise unknown_task(name, routes)

    return refuse


def unknown_task(name: Any, known: Iterable[str]) -> UnknownTask:
    """Return the error for a name that leads to no worker, with the nearest one that does."""
    near = nearest(name, known) if isinstance(name, str) else None
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known))}"
    return UnknownTask(f"no task is called {arguments.brief(name)}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name among those known that another one may be a misprint of."""
    if len(name) > MAX_MISPRINT:
        return None
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=MISPRINT) or [
        each for each in known if each.endswith(f".{name}")
    ]
    return close[0] if close else None
