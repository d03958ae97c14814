"""Results of purged jobs: their callers and chords are notified at once."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from celery import _state
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from celery.states import REVOKED
from redis.exceptions import RedisError

from celery_streams.dead_letters import Letter
from celery_streams.errors import Malformed
from celery_streams.results.backend import RedisBackend
from celery_streams.transport import revocation, validation

logger = logging.getLogger(__name__)
_celery: Any = _state


def notify_callers(messages: Iterable[bytes], app: Any = None) -> None:
    """Store the jobs of purged messages as revoked, in the result backend of `app`."""
    backend = (app or _celery.get_current_app()).backend
    if not isinstance(backend, RedisBackend):
        return
    letters = [Letter("", "", message, "purged", "", "") for message in messages]
    try:
        revocation.store(backend, [each.job_id for each in letters if each.job_id], "purged")
        for letter in letters:
            _notify_chord(backend, letter)
    except (OSError, RedisError) as error:
        logger.error("failed to notify the callers of purged jobs: %s", error)  # noqa: TRY400


def _notify_chord(backend: RedisBackend, letter: Letter) -> None:
    headers = letter.envelope.get("headers")
    if not isinstance(headers, dict) or not headers.get("group"):
        return
    with suppress(Malformed):
        validation.check_call(letter.body, headers)
        request: Any = Context(headers, **(letter.body[2] or {}))
        if request.chord:
            error: Any = TaskRevokedError("purged")
            backend.on_chord_part_return(request, REVOKED, error)
