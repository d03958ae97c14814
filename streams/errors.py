"""What can go wrong with a message, one sentence each."""


class ClusterError(Exception):
    """The cluster could not do what was asked."""


class Unreadable(ClusterError):
    """A message or a value is not what it says: no JSON, of no known type, of a wrong length."""


class DeadLetter(ClusterError):
    """No worker can do the job: its message is kept among the dead letters, with the reason."""


class Malformed(Unreadable):
    """A message that would end a worker or block it, or leave the one who waits without answer.

    It knows whose message that is, as far as the message says so.
    """

    def __init__(self, reason: str, job_id: str | None = None, reply_to: str | None = None) -> None:
        super().__init__(reason)
        #: One sentence.
        self.reason = reason
        self.job_id = job_id
        #: What the caller's process listens to.
        self.reply_to = reply_to
