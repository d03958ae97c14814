"""Revoked jobs, kept in Redis: a worker that starts later must not run them either.

Celery tells only the workers that listen at that moment, and they forget it when they end. Here
the ids stand in a sorted set, by the time when they were revoked; each worker reads it when it
connects, and what was added since then once a second.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery.exceptions import TaskRevokedError
from celery.states import PENDING, RECEIVED, REJECTED, RETRY, REVOKED

from celery_streams.protocol import text
from celery_streams.results.backend import RedisBackend
from celery_streams.results.states import Transition
from celery_streams.scripts import REVOKE, STORE

#: The sorted set.
KEY = "celery-revoked"
#: Seconds that an id is kept: longer than a job waits for its time.
SECONDS = 31 * 86_400
#: Ids that are kept, the latest; each takes 300 bytes of every worker.
MAX_KEPT = 200_000
#: Ids that one command revokes.
MAX_IDS = 10_000
#: Results that are stored at a time.
BATCH = 1000
#: Seconds by which ids are read again: others may have been added in the same moment.
OVERLAP = 1.0

#: The states that revoking replaces, as Celery has it; any other says that the job runs, or ended.
_NOT_BEGUN = frozenset({PENDING, RECEIVED, RETRY, REJECTED})


def record(client: Any, ids: Iterable[str], prefix: str = "") -> list[str]:
    """Keep ids in Redis, and return those that were not there yet; raises redis-py's errors."""
    members = list(ids)
    added: list[str] = []
    for start in range(0, len(members), BATCH):
        some = members[start : start + BATCH]
        reply = REVOKE(client, [prefix + KEY], SECONDS, MAX_KEPT, *some)
        added += [some[int(place) - 1] for place in reply]
    return added


def store(backend: Any, ids: Sequence[str], reason: str = "revoked") -> None:
    """Store that jobs are revoked, but for those that run or ended; raises redis-py's errors."""
    if not isinstance(backend, RedisBackend):
        for job_id in ids:
            if backend.get_state(job_id) in _NOT_BEGUN:
                backend.mark_as_revoked(job_id, reason=reason, store_result=True)
        return
    transition = Transition(REVOKED, only=_NOT_BEGUN)
    error: Any = TaskRevokedError(reason)
    encoded = backend.prepare_exception(error, backend.serializer)
    backend.client.script_load(STORE.source)
    for start in range(0, len(ids), BATCH):
        with backend.client.pipeline(transaction=False) as pipeline:
            for job_id in ids[start : start + BATCH]:
                payload = backend.payload(job_id, encoded, REVOKED)
                arguments = (payload, int(backend.expires or 0), "", *transition.arguments())
                STORE(pipeline, [backend.get_key_for_task(job_id)], *arguments)
            pipeline.execute()


class Revoked:
    """What a worker has read of the set."""

    def __init__(self, on_revoked: Callable[[list[str]], object], prefix: str = "") -> None:
        self._on_revoked = on_revoked
        self._key = prefix + KEY
        self._since = "-inf"

    def read(self, client: Any) -> None:
        """Pass on the ids that were added since the last time; raises redis-py's errors."""
        with client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.zrange(self._key, self._since, "+inf", byscore=True, withscores=True)
            (seconds, _), found = pipeline.execute()
        # Never ahead of the server's clock: an id that is added now has its time.
        last = float(found[-1][1]) - OVERLAP if found else float(self._since)
        self._since = str(min(last, float(seconds) - OVERLAP))
        if found:
            self._on_revoked([text(job_id) for job_id, _ in found])
