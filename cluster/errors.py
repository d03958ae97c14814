"""What can go wrong with a job, one sentence each."""

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
    """No route leads to a task of this name, so no worker would ever run it."""


class Unreachable(ClusterError):
    """The broker does not answer, or refuses the password."""


class JobTimeout(ClusterError, TimeoutError):
    """The job gave no result before the caller's deadline."""


class ValueGone(ClusterError):
    """A large value is no longer in Redis: expired, removed, or lost with the server's memory."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "the value is gone: it has expired or was removed, or Redis was started anew since"
        )
