"""What the store says of a job, checked before Celery uses it."""

from datetime import datetime
from typing import Any

from celery.result import ResultBase
from celery.states import PROPAGATE_STATES

from celery_streams.errors import Unreadable

#: Parents and groups, one in the other, that a job's children may have: Celery reads them by
#: recursion.
MAX_DEPTH = 500
#: Characters of a job's id, or of its state.
MAX_NAME = 1024
#: What is a text wherever it is stored.
_TEXTS = ("traceback", "parent_id", "group_id", "date_done")


def check(meta: Any, job_id: str | None = None) -> None:
    """Raise Unreadable for what is not the state of a job, or of another job than this one."""
    if not isinstance(meta, dict):
        raise Unreadable(f"what is stored is not a job's result but {type(meta).__name__}")
    for name in ("status", "task_id"):
        value = meta.get(name)
        if type(value) is not str or not 0 < len(value) <= MAX_NAME:
            raise Unreadable(f"what is stored is not a job's result: it has no {name}")
    if "result" not in meta:
        raise Unreadable("what is stored is not a job's result: it has no result")
    if job_id is not None and meta["task_id"] != job_id:
        raise Unreadable("what is stored is the result of another job")
    for name in _TEXTS:
        value = meta.get(name)
        if value is not None and not isinstance(value, str | datetime):
            raise Unreadable(f"a stored result's {name} is not a text but {type(value).__name__}")
    if meta.get("children") and not are_results(meta["children"]):
        raise Unreadable("a stored result's children are not jobs")


def check_failure(meta: dict[str, Any]) -> None:
    """Raise Unreadable for a failure without an error, once errors are rebuilt."""
    if meta["status"] in PROPAGATE_STATES and not isinstance(meta["result"], BaseException):
        raise Unreadable("a failure is stored without its error")


def are_results(children: Any) -> bool:
    """Return True for a list of what `celery.result.result_from_tuple` takes."""
    level: list[Any] = [*children] if isinstance(children, list | tuple) else [None]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for child in level:
            if isinstance(child, ResultBase):
                continue
            if not _is_pair(child):
                return False
            itself, members = child
            job_id, parent = itself if _is_pair(itself) else (itself, None)
            if type(job_id) is not str:
                return False
            if parent:
                inner.append(parent)
            if members is not None:
                if not isinstance(members, list | tuple):
                    return False
                inner += members
        if not inner:
            return True
        level = inner
    return False


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2  # noqa: PLR2004 - a pair
