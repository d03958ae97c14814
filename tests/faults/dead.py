"""Dead letters, read as any client of Redis can."""

import json
from typing import Any, NamedTuple

import redis


class Dead(NamedTuple):
    """A message that was given up, byte for byte, and why."""

    message: bytes
    reason: str
    deliveries: str

    @property
    def job_id(self) -> str | None:
        """The id of its job, where one can be read."""
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
