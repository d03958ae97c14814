"""What can go wrong with a job, one sentence each."""


class ClusterError(Exception):
    """The cluster could not do what was asked."""


class UnknownTask(ClusterError):
    """No route leads to a task of this name, so no worker would ever run it."""


class Unreachable(ClusterError):
    """The broker does not answer, or refuses the password."""


class JobTimeout(ClusterError, TimeoutError):
    """The job gave no result before the caller's deadline."""


class OutOfMemory(ClusterError):
    """The worker had not enough memory for the job.

    Not a `MemoryError`: Celery takes one for a broken worker, ends it and runs
    the job again, which ends the next worker.
    """


class Unreadable(ClusterError):
    """The worker could not read the job's message: not JSON, or a value of no known type."""
