"""What a consumer does about commands that the server refuses."""

import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from celery_streams import scripts
from celery_streams.transport.queues import Queues, is_without_group, is_wrong_type

logger = logging.getLogger(__name__)

#: Seconds without commands after a refusal.
PAUSE = 1.0
#: Seconds before the same refusal is logged again.
LOG_INTERVAL = 60.0


class Refusals:
    """Recovers from a refusal where possible; otherwise logs it, and pauses the consumer.

    `consumed` returns the queues that the consumer fetches from; `reconnect` closes its
    connections, so that the next command resolves the server's name again.
    """

    def __init__(
        self, queues: Queues, consumed: Callable[[], Iterable[str]], reconnect: Callable[[], None]
    ) -> None:
        self._queues = queues
        self._consumed = consumed
        self._reconnect = reconnect
        #: Until then, by the monotonic clock, the consumer neither fetches nor maintains.
        self.pause_until = 0.0
        self._log_again_at: dict[str, float] = {}

    def attempt(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function`; if the server refuses, leave it to a later round of maintenance."""
        try:
            function(*args)
        except ResponseError as error:
            if is_wrong_type(error):  # of one queue: the others are still consumed
                self.log(error)
            else:
                self.handle(error)

    def handle(self, error: ResponseError) -> None:
        """Reload the script or recreate the groups if they are missing; otherwise log and pause."""
        if isinstance(error, NoScriptError):
            self._queues.load(scripts.FETCH)
            return
        if is_without_group(error):
            try:
                for queue in self._consumed():
                    self._queues.create(queue)
            except ResponseError as another:
                error = another
            else:
                return
        if isinstance(error, ReadOnlyError):  # a former primary
            self._reconnect()
        self.pause_until = monotonic() + PAUSE
        self.log(error)

    def log(self, error: ResponseError) -> None:
        """Log a refusal, at most once a minute; for a wrong type, with the keys that have it."""
        text = str(error)
        refusal = text.rpartition(" script: ")[0] or text  # without the script's digest
        if monotonic() <= self._log_again_at.get(refusal, 0):
            return
        self._log_again_at[refusal] = monotonic() + LOG_INTERVAL
        foreign: list[str] = []
        if is_wrong_type(error):
            foreign = [key for each in self._consumed() for key in self._queues.foreign_keys(each)]
        which = f" ({', '.join(foreign)})" if foreign else ""
        logger.error("the server refuses, trying again every second: %s%s", refusal, which)
