"""Canvas: every job in a signature is checked before the first of them is sent.

A misspelt name or a wrong option further on in a chain, among the members of a group, in a
callback or in an error callback would otherwise be found when half of the work is done.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

from celery import canvas
from celery.canvas import Signature

from celery_streams.producer.template import new_id
from cluster.codec import Put, marked, pack

#: Where signatures stand among the options of a job.
_LINKED = ("link", "link_error", "chain", "chord")
#: Where they stand among the arguments of Celery's own tasks: chain and group, chord, map.
_PARTS = ("tasks", "header", "body", "task")


def jobs(signature: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the options of each job that a signature, or a list of them, stands for.

    A group, a chord or a chain is no job of its own; `map`, `starmap` and `chunks` are.
    """
    if isinstance(signature, list | tuple):
        for part in signature:
            yield from jobs(part)
    elif isinstance(signature, Mapping) and "task" in signature:
        if signature.get("subtask_type") not in {"chain", "group", "chord"}:
            yield signature["task"], signature["options"]
        if signature["task"].startswith("celery."):
            yield from linked_jobs(signature["kwargs"], _PARTS)
        yield from linked_jobs(signature["options"])


def linked_jobs(
    options: Mapping[str, Any], keys: tuple[str, ...] = _LINKED
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the options of each job that follows one with these options."""
    for key in keys:
        yield from jobs(options.get(key))


def check_first(check: Callable[[Any, Signature[Any]], None]) -> None:
    """Have `check(app, signature)` called before the first job of a canvas is sent.

    Celery has no hook there: it sends a group's member before it looks at the next one's
    name, and has a chord's members run before it looks at its callback.
    """
    for kind in (canvas.group, canvas._chain, canvas.chord):  # noqa: SLF001 - what chain() makes
        _check_first(kind, check)


def _check_first(kind: Any, check: Callable[[Any, Signature[Any]], None]) -> None:
    stock = kind.apply_async

    @wraps(stock)
    def apply_async(self: Signature[Any], *args: Any, **options: Any) -> Any:
        check(self.app, self)
        return stock(self, *args, **options)

    kind.apply_async = apply_async


def pack_linked(value: Any, put_for: Callable[[str], Put], put: Put | None = None) -> Any:
    """Return signatures with their arguments packed, each job's large ones stored as its own.

    `put_for` gives what stores those of a job by its id. A job without an id is given one if it
    has large arguments: only the job they are stored for may read them.
    """
    if isinstance(value, Mapping):
        own = None
        if "task" in value and isinstance(value.get("options"), Mapping):
            own = _Own(value["options"].get("task_id"), put_for)
            put = own.put
        packed = {key: pack_linked(each, put_for, put) for key, each in value.items()}
        if own and own.is_used:
            packed["options"]["task_id"] = own.job_id
        return marked(packed)
    if isinstance(value, list):
        return [pack_linked(each, put_for, put) for each in value]
    if isinstance(value, tuple):
        return tuple(pack_linked(each, put_for, put) for each in value)
    return pack(value, put)


class _Own:
    """Stores the large arguments of one job; it is asked for what stores them once."""

    def __init__(self, job_id: Any, put_for: Callable[[str], Put]) -> None:
        self.job_id: str = job_id or new_id()
        self._put_for = put_for
        self._put: Put | None = None

    @property
    def is_used(self) -> bool:
        """Whether something was stored."""
        return self._put is not None

    def put(self, data: memoryview) -> Mapping[str, Any]:
        """Store bytes, and return a reference to them."""
        if self._put is None:
            self._put = self._put_for(self.job_id)
        return self._put(data)
