"""Rate limits of tasks, with one timer per task.

Celery starts a chain of timers per limited job, of which kombu's loop fires only ten a second. It
also counts waiting limited jobs in the prefetch limit, so that they block all others.
"""

import fcntl
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

#: Size of the pipe for some dozens of tags.
PIPE_BYTES = 4096
#: Seconds until the next try if the server refuses a command.
PAUSE = 1.0
#: Limited jobs that a worker holds in addition to its prefetch limit; more count towards it.
MAX_UNCOUNTED = 1000


class _Consumer(Protocol):
    """The part of `worker.consumer.Consumer` that is used here."""

    qos: Any
    timer: Any

    def _limit_move_to_pool(self, request: Any) -> object: ...


class ParkedJobs:
    """Jobs that a pool's processes leave to the main process, until rate limits permit them.

    A process sends the tags of their messages through a pipe.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        with suppress(AttributeError, OSError):  # else a process leaves thousands before it waits
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        #: What is read of the next tag.
        self._partial = b""
        self.tags: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether no more jobs should be left to the main process."""
        return len(self.tags) >= MAX_UNCOUNTED

    def park(self, tag: str) -> None:
        """Leave a job to the main process; by a process."""
        os.write(self._writer, f"{tag}\n".encode())

    def read(self) -> list[str]:
        """Return the tags of jobs that were left since the last call."""
        with suppress(BlockingIOError):
            *lines, self._partial = (self._partial + os.read(self.reader, 65_536)).split(b"\n")
            tags = [line.decode() for line in lines]
            self.tags.update(tags)
            return tags
        return []


class RateLimits:
    """A consumer's rate-limited jobs, each waiting for a token of its task's bucket."""

    def __init__(self, consumer: _Consumer) -> None:
        self._consumer = consumer
        #: Requests that do not count towards the prefetch limit.
        self._uncounted: set[Any] = set()

    def add(self, request: Any, bucket: Any, tokens: int) -> None:
        """Start a job as soon as its task's bucket has enough tokens."""
        if len(self._uncounted) < MAX_UNCOUNTED:
            self._uncounted.add(request)
            self._consumer.qos.increment_eventually()
        bucket.add((request, tokens))
        if not _has_timer(bucket):
            self.start(bucket)

    def start(self, bucket: Any) -> None:
        """Start the jobs that a bucket has tokens for, and set a timer for the next token."""
        bucket.timer = None
        while bucket.contents:
            request, tokens = bucket.pop()
            if not bucket.can_consume(tokens):
                bucket.contents.appendleft((request, tokens))
                bucket.timer = self._consumer.timer.call_after(
                    bucket.expected_time(tokens), self.start, (bucket,)
                )
                return
            if not self._start_job(request):
                bucket.contents.appendleft((request, tokens))
                bucket.timer = self._consumer.timer.call_after(PAUSE, self.start, (bucket,))
                return

    def _start_job(self, request: Any) -> bool:
        """Start a job; return False if the server refuses that for now."""
        try:
            self._consumer._limit_move_to_pool(request)  # noqa: SLF001 - Celery's
        except ResponseError as error:
            logger.warning("a rate-limited job waits: the server says %s", error)
            return False
        if request in self._uncounted:
            self._uncounted.discard(request)
            self._consumer.qos.decrement_eventually()
        return True

    def move(self, former: Mapping[str, Any], buckets: Mapping[str, Any]) -> None:
        """Move jobs from the `former` buckets to the new ones; start those without a limit now."""
        for name, old in former.items():
            new = buckets.get(name)
            if not old or new is old:
                continue
            if _has_timer(old):
                old.timer.cancel()
            while old.contents:
                request, tokens = old.pop()
                if new:
                    new.add((request, tokens))
                elif not self._start_job(request):
                    self.add(request, old, 0)
            if new and new.contents:
                self.start(new)

    def clear(self) -> None:
        """Forget all jobs after a lost connection: their messages are delivered again."""
        self._uncounted.clear()


def _has_timer(bucket: Any) -> bool:
    timer = getattr(bucket, "timer", None)
    return timer is not None and not timer.canceled
