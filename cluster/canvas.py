"""Checks every job of a canvas before the first one is sent, and packs their arguments.

Otherwise, a misspelt name or an invalid option in a later part of a chain, another member of a
group, a callback or an error callback would be found only when half of the work is done.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

from celery import canvas
from celery.canvas import Signature

from celery_streams.producer.jobs import new_id
from cluster.values.codec import Put, marked, pack

#: Options of a job that hold signatures.
LINK_OPTIONS = ("link", "link_error", "chain", "chord")
#: Arguments of Celery's own tasks that hold signatures: of chain and group, chord, and map.
_SIGNATURE_ARGUMENTS = ("tasks", "header", "body", "task")


def jobs(signature: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the options of each job in a signature, or in a list of signatures.

    A group, chord or chain is not itself a job; `map`, `starmap` and `chunks` are.
    """
    if isinstance(signature, list | tuple):
        for part in signature:
            yield from jobs(part)
    elif isinstance(signature, Mapping) and "task" in signature:
        if signature.get("subtask_type") not in {"chain", "group", "chord"}:
            yield signature["task"], signature["options"]
        if signature["task"].startswith("celery."):
            yield from linked_jobs(signature["kwargs"], _SIGNATURE_ARGUMENTS)
        yield from linked_jobs(signature["options"])


def linked_jobs(
    options: Mapping[str, Any], keys: tuple[str, ...] = LINK_OPTIONS
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the options of each job that is linked to one with these options."""
    for key in keys:
        yield from jobs(options.get(key))


def install_check(check: Callable[[Any, Signature[Any]], None]) -> None:
    """Patch Celery to call `check(app, signature)` before it sends the first job of a canvas.

    Celery has no hook for this: it sends a group's member before it looks up the next one's name,
    and runs a chord's members before it looks up the callback's.
    """
    for kind in (canvas.group, canvas._chain, canvas.chord):  # noqa: SLF001 - the class behind chain()
        _patch(kind, check)


def _patch(kind: Any, check: Callable[[Any, Signature[Any]], None]) -> None:
    original = kind.apply_async

    @wraps(original)
    def apply_async(self: Signature[Any], *args: Any, **options: Any) -> Any:
        check(self.app, self)
        return original(self, *args, **options)

    kind.apply_async = apply_async


def pack_linked(value: Any, put_for: Callable[[str], Put], put: Put | None = None) -> Any:
    """Return signatures with packed arguments; large ones are stored for the job they belong to.

    `put_for(job_id)` returns a function that stores a job's large arguments. A job that has some is
    given an id if it has none, since only the job with that id may read them.
    """
    if isinstance(value, Mapping):
        job = None
        if "task" in value and isinstance(value.get("options"), Mapping):
            job = _LargeArguments(value["options"].get("task_id"), put_for)
            put = job.put
        packed = {key: pack_linked(each, put_for, put) for key, each in value.items()}
        if job and job.is_used:
            packed["options"]["task_id"] = job.job_id
        return marked(packed)
    if isinstance(value, list):
        return [pack_linked(each, put_for, put) for each in value]
    if isinstance(value, tuple):
        return tuple(pack_linked(each, put_for, put) for each in value)
    return pack(value, put)


class _LargeArguments:
    """Stores the large arguments of one job; `put_for` is called on first use."""

    def __init__(self, job_id: Any, put_for: Callable[[str], Put]) -> None:
        self.job_id: str = job_id or new_id()
        self._put_for = put_for
        self._put: Put | None = None

    @property
    def is_used(self) -> bool:
        """Whether an argument was stored."""
        return self._put is not None

    def put(self, data: memoryview) -> Mapping[str, Any]:
        """Store `data` and return a reference to it."""
        if self._put is None:
            self._put = self._put_for(self.job_id)
        return self._put(data)
