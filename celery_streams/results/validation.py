"""Checks of stored results, before Celery uses them."""

from datetime import datetime
from typing import Any

from celery.result import ResultBase
from celery.states import PROPAGATE_STATES

from celery_streams.errors import Unreadable

#: Limit on the nesting of parents and groups in a job's children, which Celery reads recursively.
MAX_DEPTH = 500
#: Length limit of a job's id and of its state, in characters.
MAX_NAME = 1024
#: Optional fields, texts if present.
_TEXTS = ("traceback", "parent_id", "group_id", "date_done")


def check(meta: Any, job_id: str | None = None) -> None:
    """Raise Unreadable if `meta` is not a job's result, or not that of `job_id`."""
    if not isinstance(meta, dict):
        raise Unreadable(f"the stored value is not a job's result but {type(meta).__name__}")
    for name in ("status", "task_id"):
        value = meta.get(name)
        if type(value) is not str or not 0 < len(value) <= MAX_NAME:
            raise Unreadable(f"the stored value is not a job's result: it has no {name}")
    if "result" not in meta:
        raise Unreadable("the stored value is not a job's result: it has no result")
    if job_id is not None and meta["task_id"] != job_id:
        raise Unreadable("the stored value is the result of another job")
    for name in _TEXTS:
        value = meta.get(name)
        if value is not None and not isinstance(value, str | datetime):
            raise Unreadable(f"a stored result's {name} is not a string but {type(value).__name__}")
    if meta.get("children") and not are_results(meta["children"]):
        raise Unreadable("a stored result's children are not jobs")


def check_failure(meta: dict[str, Any]) -> None:
    """Raise Unreadable for a failure without an error, after errors are rebuilt."""
    if meta["status"] in PROPAGATE_STATES and not isinstance(meta["result"], BaseException):
        raise Unreadable("a failure is stored without its error")


def are_results(children: Any) -> bool:
    """Return True for a list of tuples that `celery.result.result_from_tuple` accepts."""
    level: list[Any] = [*children] if isinstance(children, list | tuple) else [None]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for child in level:
            if isinstance(child, ResultBase):
                continue
            if not _is_pair(child):
                return False
            head, members = child
            job_id, parent = head if _is_pair(head) else (head, None)
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
