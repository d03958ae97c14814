"""What can go wrong with a message, one sentence each."""


class QueueFull(Exception):
    """A queue holds as many messages as it may: nothing was submitted."""


class ServerTooOld(Exception):
    """The server is older than Redis 7 or Valkey 8, and lacks what the transport needs."""
