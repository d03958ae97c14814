"""Rate limits of tasks, kept by one timer a task, beside the jobs that have none.

Celery starts a chain of timers for each limited job, of which kombu's loop fires ten a second; and
limited jobs fill the prefetch, so that no other is fetched.
"""

from collections.abc import Mapping
from typing import Any

#: Limited jobs that a worker holds without counting them in its prefetch. Beyond them, others wait.
MAX_HELD = 1000


class RateLimits:
    """The limited jobs of a consumer that wait for a token."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        #: Requests that are not counted in the prefetch.
        self._uncounted: set[Any] = set()

    def add(self, request: Any, bucket: Any, tokens: int) -> None:
        """Begin a job when its task's bucket has tokens for it."""
        if len(self._uncounted) < MAX_HELD:
            self._uncounted.add(request)
            self._consumer.qos.increment_eventually()
        bucket.add((request, tokens))
        if not _is_waited_for(bucket):
            self.begin(bucket)

    def begin(self, bucket: Any) -> None:
        """Begin all jobs of a bucket that there are tokens for, and wait for the next token."""
        bucket.timer = None
        while bucket.contents:
            request, tokens = bucket.pop()
            if not bucket.can_consume(tokens):
                bucket.contents.appendleft((request, tokens))
                bucket.timer = self._consumer.timer.call_after(
                    bucket.expected_time(tokens), self.begin, (bucket,)
                )
                return
            self._begin_job(request)

    def _begin_job(self, request: Any) -> None:
        if request in self._uncounted:
            self._uncounted.discard(request)
            self._consumer.qos.decrement_eventually()
        self._consumer._limit_move_to_pool(request)  # noqa: SLF001 - Celery's

    def move(self, former: Mapping[str, Any], buckets: Mapping[str, Any]) -> None:
        """Have the jobs of former buckets wait in those that took their places, or begin."""
        for name, old in former.items():
            new = buckets.get(name)
            if not old or new is old:
                continue
            if _is_waited_for(old):
                old.timer.cancel()
            while old.contents:
                request, tokens = old.pop()
                if new:
                    new.add((request, tokens))
                else:
                    self._begin_job(request)
            if new and new.contents:
                self.begin(new)

    def clear(self) -> None:
        """Forget all: the connection is lost, and their messages are delivered again."""
        self._uncounted.clear()


def _is_waited_for(bucket: Any) -> bool:
    timer = getattr(bucket, "timer", None)
    return timer is not None and not timer.canceled
