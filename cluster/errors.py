"""Errors of jobs, each reported in one sentence."""

from celery_streams.errors import ClusterError, DeadLetter, OutOfMemory, QueueFull, Unreadable

__all__ = [
    "ClusterError",
    "DeadLetter",
    "JobTimeout",
    "OutOfMemory",
    "QueueFull",
    "UnknownTask",
    "Unreachable",
    "Unreadable",
    "ValueGone",
]


class UnknownTask(ClusterError):
    """The task has no route, so no worker would ever run it."""


class Unreachable(ClusterError):
    """The broker or the result store does not answer, or refuses a command or the password."""


class JobTimeout(ClusterError, TimeoutError):
    """The job's result was not stored before the caller's deadline."""


class ValueGone(ClusterError):
    """A large value is no longer in Redis: expired, removed, or lost with the server's memory."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "the value is gone: it expired, was removed, or was lost when Redis restarted"
        )
