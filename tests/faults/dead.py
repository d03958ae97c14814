"""Dead letters, read by a plain client of Redis."""

import json
from typing import Any, NamedTuple

import redis


class Dead(NamedTuple):
    """A dead-lettered message, byte for byte, and its reason."""

    message: bytes
    reason: str
    deliveries: str

    @property
    def job_id(self) -> str | None:
        """The id of its job, if it can be read."""
        try:
            job_id = json.loads(self.message)["headers"]["id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return job_id if isinstance(job_id, str) else None


def dead_letters(server: "redis.Redis", queue: str) -> list[Dead]:
    """Return the dead letters of a queue, the oldest first."""
    entries: Any = server.xrange(f"{queue}:dead")
    return [
        Dead(
            fields[b"message"],
            fields[b"reason"].decode(),
            fields.get(b"deliveries", b"").decode(),
        )
        for _, fields in entries
    ]
