"""Errors of the transport and the result store; each message is one sentence."""

from typing import Any

import click


class ClusterError(Exception):
    """Base class: the requested operation failed."""


class Unreadable(ClusterError):
    """A message or a stored value is malformed: invalid JSON, an unknown type, a wrong length."""


class Malformed(Unreadable):
    """A message that would crash or block a worker, or leave its caller without an answer.

    `job_id` and `reply_to` are None if the message does not name them.
    """

    def __init__(self, reason: str, job_id: str | None = None, reply_to: str | None = None) -> None:
        super().__init__(reason)
        #: One sentence.
        self.reason = reason
        self.job_id = job_id
        #: The id of the sender, to which the result is announced.
        self.reply_to = reply_to

    @property
    def envelope(self) -> dict[str, Any]:
        """An envelope that names the job and its sender, in the message's place."""
        return {"headers": {"id": self.job_id}, "properties": {"reply_to": self.reply_to}}


class DeadLetter(ClusterError):
    """No worker can process the job; its message was dead-lettered with the reason."""


class MessageTooLarge(ClusterError):
    """A message is larger than `max_message_bytes`; it was not published."""


class QueueFull(ClusterError):
    """A queue has reached its `queue_max_length`; the message was not published."""


class UnknownServer(click.ClickException, ValueError):
    """A URL does not name a Redis or Valkey server, or has an invalid part.

    Click, which runs Celery's commands, shows it as one line.
    """


class InvalidOption(click.ClickException, ValueError):
    """An option in `broker_transport_options` is out of range; shown in the same way."""


def access_fault(error: BaseException) -> str:
    """Return what is wrong with a password, from the server's error."""
    is_missing = str(error).startswith("Authentication required")
    return "needs a password" if is_missing else f"refuses the password: {error}"


class ServerTooOld(ClusterError):
    """The server is older than the transport supports: Redis 7 or Valkey 7.2."""


class OutOfMemory(ClusterError):
    """The worker, the caller or Redis has too little memory for a job or its values.

    Not a subclass of `MemoryError`: for that Celery ends the worker and requeues the job, which
    then ends the next worker.
    """
