"""A job that no worker would ever run is refused where it is submitted."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cluster.errors import UnknownTask

Router = Callable[..., dict[str, Any] | None]


def refuse_all_but(routes: Mapping[str, Any]) -> Router:
    """Return the last router of `task_routes`: it raises UnknownTask for other names.

    A job whose sender named a queue passes: Celery checks that queue itself.
    """

    def refuse(
        name: str, args: object, kwargs: object, options: Mapping[str, Any], task: object = None
    ) -> None:
        if "queue" not in options:
            raise UnknownTask(f"no task is called {name!r}{_hint(name, routes)}")

    return refuse


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(known))}"
