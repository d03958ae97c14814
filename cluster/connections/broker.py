"""Connecting to the broker within a time limit, and reporting in one line why it failed."""

from time import monotonic
from typing import Any

from amqp.exceptions import AccessRefused, AMQPError, MessageNacked, NotAllowed
from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from celery_streams.errors import access_fault
from cluster.connections import rabbitmq
from cluster.errors import Unreachable

#: Errors of Celery, kombu and the servers' clients while a server is unreachable.
UNREACHABLE_ERRORS = (
    *(OperationalError, BatchPublishError, ConnectionError),
    *(RedisError, AMQPError, MessageNacked),
)
#: Their errors for a wrong user or password.
_ACCESS_ERRORS = (AuthenticationError, AccessRefused, NotAllowed)
#: Host names of this machine.
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def connect(app: "Celery[Any]", timeout: float) -> None:
    """Connect to the app's broker, so that an unreachable one is reported before any job is sent.

    Raise Unreachable if it does not answer within `timeout` seconds or refuses the password.
    """
    deadline = monotonic() + timeout

    def on_error(error: Exception, interval: float) -> None:
        if isinstance(error, _ACCESS_ERRORS) or monotonic() > deadline:
            raise error

    try:
        with app.connection_or_acquire() as connection:
            connection.ensure_connection(
                on_error,
                interval_start=0.1,
                interval_step=0.2,
                interval_max=1,
                timeout=timeout,
                reraise_as_library_errors=False,
            )
    except (OSError, *UNREACHABLE_ERRORS) as error:  # OSError: an unresolved host name
        raise unreachable(app, error) from None


def unreachable(app: "Celery[Any]", error: BaseException) -> Unreachable:
    """Return the one-line error for an exception of the broker or the result store."""
    if isinstance(error, Unreachable):
        return error
    connection = app.connection_for_write()
    server = f"broker at {connection.as_uri()}"
    if isinstance(error, RedisError) and rabbitmq.is_url(connection.as_uri()):
        server = f"result store at {app.backend.as_uri(include_password=False)}"
    if isinstance(error, _ACCESS_ERRORS):
        return Unreachable(f"the {server} {access_fault(error)}")
    if "maxmemory" in str(error):
        return Unreachable(f"the {server} accepts no more jobs: its memory is full")
    cause = error if isinstance(error, ResponseError) else error.__cause__
    if isinstance(cause, ResponseError):
        return Unreachable(f"the {server} refuses the command: {cause}")
    hint = ""
    if "refused" in str(error).lower() and (connection.hostname or "") in _LOCAL_HOSTS:
        hint = " Is the cluster running, and REDIS_PORT set to its port?"
    return Unreachable(f"cannot reach the {server}: {error}{hint}")
