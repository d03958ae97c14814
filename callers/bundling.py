"""How many calls of a task travel in one message: as many as take 10 ms."""

import math
from collections.abc import Sequence
from time import monotonic
from typing import Any

from celery_streams import bundles
from celery_streams.bundles import MAX_CALLS, SECONDS, Outcome

#: Calls that are sent first, to learn how long they take, and seconds to wait for that.
FIRST_CALLS, FIRST_SECONDS = 7, 0.02
#: Bundles in a caller's window at least: workers share them.
SHARE = 16
#: Digits of a position.
MAX_DIGITS = len(str(MAX_CALLS))
#: Stands for the value of a call that has not ended.
OPEN = object()


class Unit:
    """Calls that were sent in one message: one as an ordinary job, or several as a bundle."""

    def __init__(self, job_id: str, count: int, deadline: float) -> None:
        self.id, self.deadline = job_id, deadline
        #: Each call's value or OPEN, and how many of them are yielded.
        self.outcomes: list[Any] = [OPEN] * count
        self.yielded = 0
        #: Whether what is stored of the job is the outcome of all calls.
        self.is_bundle = count > 1

    def call_id(self, position: int) -> str:
        """Return the id of a call as a job."""
        return bundles.call_id(self.id, position) if len(self.outcomes) > 1 else self.id

    def position(self, job_id: str) -> int | None:
        """Return the position of the call that was a job of this id; None without one."""
        if len(self.outcomes) == 1:
            return 0
        digits = job_id.rpartition("-")[2]
        position = int(digits) if digits.isdecimal() and len(digits) <= MAX_DIGITS else -1
        return position if 0 <= position < len(self.outcomes) else None

    def end(self, outcomes: list[Any], own: Sequence[int] = ()) -> list[str]:
        """End a bundle; return the ids of calls that are jobs of their own and have not ended."""
        for position in own:
            outcomes[position] = OPEN
        for position, each in enumerate(self.outcomes):
            if each is not OPEN:  # it ended before
                outcomes[position] = each
        self.outcomes = outcomes
        return [self.call_id(position) for position in self.open()] if own else []

    def open(self) -> list[int]:
        """Return the positions of the calls that have not ended."""
        return [position for position, each in enumerate(self.outcomes) if each is OPEN]

    def open_jobs(self) -> list[str]:
        """Return the ids of the jobs that may not have ended: of a bundle, also of its calls."""
        return [*map(self.call_id, self.open()), *([self.id] if self.is_bundle else ())]


class Bundling:
    """Decides how the rows of a caller with such a window are divided into messages."""

    def __init__(self, window: int) -> None:
        #: Calls that a bundle is to have, now and at most.
        self.calls, self._most = 1, min(MAX_CALLS, window // SHARE)
        self._has_learned = self._most <= 1
        self._began = math.inf

    @property
    def waits_until(self) -> float:
        """Until when, by the monotonic clock, to wait for the first bundle; infinity if not."""
        until = self._began + FIRST_SECONDS
        if monotonic() > until:
            self._has_learned = True  # they take longer, or the workers are busy
        return math.inf if self._has_learned else until

    def waits(self, submitted: int) -> bool:
        """Return True if no more calls should be submitted before a bundle has ended."""
        return submitted >= FIRST_CALLS and self.waits_until < math.inf

    def parts(self, rows: Sequence[Any]) -> list[Sequence[Any]]:
        """Divide rows into those of each message."""
        if not self._has_learned:
            self._began = min(self._began, monotonic())
            return [rows]
        return [rows[i : i + self.calls] for i in range(0, len(rows), self.calls)]

    def too_large(self) -> None:
        """Make the next bundles smaller: one did not fit into a message."""
        self.calls = max(self.calls // 2, 1)

    def ended(self, outcome: Outcome) -> None:
        """Learn from the outcome of a bundle."""
        self._has_learned = True
        made = len(outcome.values) - len(outcome.own)
        if not made:  # they have to be jobs
            self._most = 1
        wanted = int(SECONDS * made / max(outcome.seconds, 1e-6))
        self.calls = max(min(wanted, 2 * max(self.calls, made), self._most), 1)
