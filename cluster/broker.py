"""Whether the broker answers: tried within a time, and said in one line if it does not."""

from time import monotonic
from typing import Any

from amqp.exceptions import AccessRefused, AMQPError, MessageNacked, NotAllowed
from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from cluster import rabbitmq
from cluster.errors import Unreachable

#: What Celery, kombu and the servers' clients raise while a server is away.
AWAY = (
    *(OperationalError, BatchPublishError, ConnectionError),
    *(RedisError, AMQPError, MessageNacked),
)
#: What they raise where the password, or the user, is not the right one.
REFUSED = (AuthenticationError, AccessRefused, NotAllowed)
#: This machine's own names.
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def connect(app: "Celery[Any]", timeout: float) -> None:
    """Make sure that an app's broker answers, so that a dead one is found early.

    Raises Unreachable if it does not within `timeout` seconds, or refuses the password.
    """
    deadline = monotonic() + timeout

    def refused(error: Exception, interval: float) -> None:
        if isinstance(error, REFUSED) or monotonic() > deadline:
            raise error

    try:
        with app.connection_or_acquire() as connection:
            connection.ensure_connection(
                refused,
                interval_start=0.1,
                interval_step=0.2,
                interval_max=1,
                timeout=timeout,
                reraise_as_library_errors=False,
            )
    except (OSError, *AWAY) as error:  # among them an address that cannot be resolved
        raise unreachable(app, error) from None


def unreachable(app: "Celery[Any]", error: BaseException) -> Unreachable:
    """Return the one line for what broker or result store raised."""
    if isinstance(error, Unreachable):
        return error
    connection = app.connection_for_write()
    server = f"broker at {connection.as_uri()}"
    if isinstance(error, RedisError) and rabbitmq.is_url(connection.as_uri()):
        server = f"result store at {app.backend.as_uri(include_password=False)}"
    if isinstance(error, REFUSED):
        return Unreachable(f"the {server} refuses the password: {error}")
    if "maxmemory" in str(error):
        return Unreachable(f"the {server} takes no more jobs: its memory is full")
    cause = error if isinstance(error, ResponseError) else error.__cause__
    if isinstance(cause, ResponseError):
        return Unreachable(f"the {server} refuses: {cause}")
    hint = ""
    if "refused" in str(error).lower() and (connection.hostname or "") in _LOCAL:
        hint = " Is the cluster started, and its port exported (REDIS_PORT)?"
    return Unreachable(f"cannot reach the {server}: {error}{hint}")
