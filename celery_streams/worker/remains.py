"""What processes that have ended leave behind: messages, jobs, events."""

from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from celery_streams.worker.child import Child


class Remains:
    """The messages that a pool's processes have left, until they are released."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        #: Tags of messages that are to be released.
        self.tags: list[str] = []
        #: Whether running jobs are released, and neither failed nor requeued.
        self.releases_jobs = False

    def take(self, child: Child) -> None:
        """Take what a process held that has ended, and fail or requeue its job; raises OSError."""
        jobs, slot = self._pool.jobs, child.slot
        if dispatcher := self._pool.consumer.event_dispatcher:
            dispatcher.send_all_of(slot)
        running, tags = slot.running, slot.tags
        if running:
            tags.remove(running.tag)
        if running and self.releases_jobs:
            tags.append(running.tag)
        elif running and jobs:
            jobs.lost(child, running)
        elif child.exitcode and not self.releases_jobs and jobs:
            begun = slot.begun  # their acks were not sent
            jobs.requeue(begun)
            tags = [tag for tag in tags if tag not in begun]
        self.tags += tags

    def release(self) -> None:
        """Release the messages, now or, if the server is unreachable, at the next call."""
        if self.tags and self._pool.jobs:
            with suppress(OSError, RedisError):
                self._pool.jobs.release(self.tags)
                self.tags = []
