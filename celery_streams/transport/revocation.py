"""Revoked jobs, kept in Redis so that workers started later do not run them either.

Celery notifies only the workers that listen at that moment, and they forget it when they stop. Here
the ids are kept in a sorted set, scored by the time of their revocation. Each worker reads the set
when it connects, and once a second the ids added since.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery.exceptions import TaskRevokedError
from celery.states import PENDING, RECEIVED, REJECTED, RETRY, REVOKED

from celery_streams.protocol import text
from celery_streams.results.backend import RedisBackend
from celery_streams.results.states import Transition
from celery_streams.scripts import REVOKE, STORE

#: Key of the sorted set.
KEY = "celery-revoked"
#: Retention of an id, in seconds: longer than a job can be delayed.
RETENTION = 31 * 86_400
#: Maximum number of ids kept, the latest ones; each takes 300 bytes in every worker.
MAX_REVOKED = 200_000
#: Maximum number of ids revoked by one command.
MAX_IDS = 10_000
#: Number of ids or results sent to Redis at a time.
BATCH_SIZE = 1000
#: Overlap of successive reads, in seconds: ids may be added at the moment of the last read.
OVERLAP = 1.0

#: States that a revocation replaces, as in Celery; in any other, the job is running or finished.
_NOT_STARTED = frozenset({PENDING, RECEIVED, RETRY, REJECTED})


def record(client: Any, ids: Iterable[str], prefix: str = "") -> list[str]:
    """Store ids in Redis and return the new ones; raises redis-py's errors."""
    members = list(ids)
    added: list[str] = []
    for start in range(0, len(members), BATCH_SIZE):
        batch = members[start : start + BATCH_SIZE]
        reply = REVOKE(client, [prefix + KEY], RETENTION, MAX_REVOKED, *batch)
        added += [batch[int(place) - 1] for place in reply]
    return added


def store(backend: Any, ids: Sequence[str], reason: str = "revoked") -> None:
    """Store jobs as revoked unless they are running or finished; raises redis-py's errors."""
    if not isinstance(backend, RedisBackend):
        for job_id in ids:
            if backend.get_state(job_id) in _NOT_STARTED:
                backend.mark_as_revoked(job_id, reason=reason, store_result=True)
        return
    transition = Transition(REVOKED, only=_NOT_STARTED)
    error: Any = TaskRevokedError(reason)
    encoded = backend.prepare_exception(error, backend.serializer)
    backend.client.script_load(STORE.source)
    for start in range(0, len(ids), BATCH_SIZE):
        with backend.client.pipeline(transaction=False) as pipeline:
            for job_id in ids[start : start + BATCH_SIZE]:
                payload = backend.payload(job_id, encoded, REVOKED)
                arguments = (payload, int(backend.expires or 0), "", *transition.arguments())
                STORE(pipeline, [backend.get_key_for_task(job_id)], *arguments)
            pipeline.execute()


class Revoked:
    """A worker's reader of the set, which passes new ids to `on_revoked`."""

    def __init__(self, on_revoked: Callable[[list[str]], object], prefix: str = "") -> None:
        self._on_revoked = on_revoked
        self._key = prefix + KEY
        self._since = "-inf"

    def read(self, client: Any) -> None:
        """Read the ids added since the last call; raises redis-py's errors."""
        with client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.zrange(self._key, self._since, "+inf", byscore=True, withscores=True)
            (seconds, _), found = pipeline.execute()
        # Never ahead of the server's clock, by which the next ids are scored.
        last = float(found[-1][1]) - OVERLAP if found else float(self._since)
        self._since = str(min(last, float(seconds) - OVERLAP))
        if found:
            self._on_revoked([text(job_id) for job_id, _ in found])
