"""Retries of commands that the server temporarily refuses.

During a failover, a long script or a change of ACL rules, a later attempt may succeed.
https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
"""

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep
from typing import Any, TypeVar

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from celery_streams import worker_state
from celery_streams.protocol import error_text

logger = logging.getLogger(__name__)

#: Seconds for which a worker retries a refused command; then its job has to run again.
MAX_WAIT = 60.0
#: Bounds of the pause between attempts, in seconds; it doubles with each.
MIN_PAUSE, MAX_PAUSE = 0.05, 1.0

_STATES = (
    *(BusyLoadingError, ClusterDownError, MasterDownError),
    *(OutOfMemoryError, ReadOnlyError, TryAgainError),
)
_STATE_CODES = (
    *("BUSY ", "NOREPLICAS", "MISCONF", "LOADING", "MASTERDOWN", "READONLY", "OOM ", "UNKILLABLE"),
    *("CLUSTERDOWN", "TRYAGAIN", "max number of clients", "ERR max number of clients"),
)
_RIGHTS = (AuthenticationError, AuthorizationError, NoPermissionError)
_RIGHT_CODES = ("NOPERM", "NOAUTH", "WRONGPASS", "DENIED")

T = TypeVar("T")


def is_state_of_server(error: BaseException) -> bool:
    """Return True if the server refused a command because of its current state."""
    return isinstance(error, _STATES) or (
        isinstance(error, ResponseError) and error_text(error).startswith(_STATE_CODES)
    )


def is_temporary(error: BaseException) -> bool:
    """Return True if the server refused a command because of its state or the user's rights."""
    return (
        is_state_of_server(error)
        or isinstance(error, _RIGHTS)
        or (isinstance(error, ResponseError) and error_text(error).startswith(_RIGHT_CODES))
    )


def retry_while_refused(function: Callable[[], T]) -> T:
    """Call `function`; in a worker, retry for up to MAX_WAIT seconds if the server refuses.

    Raises the errors of `function`. Other programs get the first: their callers have deadlines.
    """
    pause, deadline = MIN_PAUSE, None
    while True:
        try:
            return function()
        except (ResponseError, *_STATES, *_RIGHTS) as error:
            if not (is_temporary(error) and worker_state.is_worker()):
                raise
            if deadline is None:
                deadline = monotonic() + MAX_WAIT
                logger.warning("the server refuses, trying again: %s", error)
            elif monotonic() > deadline:
                raise
        sleep(pause)
        pause = min(2 * pause, MAX_PAUSE)


class RetryingPipeline(Pipeline):
    """A pipeline that is retried if refused; its commands must be safe to repeat."""

    def execute(self, raise_on_error: bool = True) -> Any:  # noqa: FBT002 - redis-py's
        """Send the commands and return their replies."""
        stack = list(self.command_stack)

        def send() -> Any:
            self.command_stack = list(stack)
            return super(RetryingPipeline, self).execute(raise_on_error)

        return retry_while_refused(send)


class RetryingRedis(Redis):
    """A client for workers that retries refused commands."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its reply."""
        return retry_while_refused(partial(super().execute_command, *args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:  # noqa: FBT002 - redis-py's
        """Return a pipeline that retries."""
        return RetryingPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
