"""The result store: Celery's, with the error of a chord's member in place of one that quotes it."""

from typing import Any

from celery.backends import redis
from celery.exceptions import ChordError
from kombu.utils.functional import maybe_list


class RedisBackend(redis.RedisBackend):
    """Gives whoever waits for a chord what its member raised."""

    def chord_error_from_stack(self, callback: Any, exc: Exception | None = None) -> Any:
        """Fail a chord's callback, and all that follows it, with the error of the member.

        Celery would wrap it: a caller could not tell a ValueError from a lost worker.
        """
        if isinstance(exc, ChordError) and isinstance(exc.__cause__, Exception):
            exc = exc.__cause__
        # Given by `set`, an error callback is alone; Celery would iterate over its keys.
        callback.options["link_error"] = maybe_list(callback.options.get("link_error")) or []
        return super().chord_error_from_stack(callback, exc)
