"""Errors of the transport and the result store; each message is one sentence."""


class ClusterError(Exception):
    """Base class: the requested operation failed."""


class Unreadable(ClusterError):
    """A message or a stored value is malformed: invalid JSON, an unknown type, a wrong length."""


class DeadLetter(ClusterError):
    """No worker can process the job; its message was dead-lettered with the reason."""


class MessageTooLarge(ClusterError):
    """A message is larger than `max_message_bytes`; it was not published."""


class QueueFull(ClusterError):
    """A queue has reached its `queue_max_length`; the message was not published."""


class ServerTooOld(ClusterError):
    """The server is older than the transport supports: Redis 7 or Valkey 7.2."""


class OutOfMemory(ClusterError):
    """The worker, the caller or Redis has too little memory for a job or its values.

    Not a subclass of `MemoryError`: for that Celery ends the worker and requeues the job, which
    then ends the next worker.
    """
