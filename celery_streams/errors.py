"""What can go wrong with a message, one sentence each."""


class ClusterError(Exception):
    """The cluster could not do what was asked."""


class Unreadable(ClusterError):
    """A message or a value is not what it says: no JSON, of no known type, of a wrong length."""


class DeadLetter(ClusterError):
    """No worker can do the job: its message is kept among the dead letters, with the reason."""


class MessageTooLarge(ClusterError):
    """A message has more bytes than `max_message_bytes` allows: nothing was submitted."""


class QueueFull(ClusterError):
    """A queue holds as many messages as it may: nothing was submitted."""


class ServerTooOld(ClusterError):
    """The server is older than Redis 7 or Valkey 7.2, and lacks what the transport needs."""


class OutOfMemory(ClusterError):
    """There is not enough memory for a job or its values: on the worker, at the caller, in Redis.

    Not a `MemoryError`: Celery takes one for a broken worker, ends it and runs
    the job again, which ends the next worker.
    """
