"""Whose turn it is: the processes of a pool wait for messages one at a time, once they may."""

from multiprocessing import get_context
from time import monotonic
from typing import Any

#: How often in a second the workers that do not wait fetch, all together.
MAX_POLLS = 500
#: Seconds without a leader after which one is made.
LEADERLESS = 2.0


class Turns:
    """Semaphores that a pool's processes share with the main process."""

    def __init__(self) -> None:
        #: Held by the process that waits for messages.
        self.leadership: Any = get_context("fork").Semaphore(1)
        #: When it was last free, or held by a process that says so.
        self._led_at = monotonic()
        #: Passed by each process before it fetches.
        self._gate: Any = get_context("fork").Semaphore(0)
        self.is_open = False

    def open(self) -> None:
        """Let the processes fetch."""
        self.is_open = True
        self._gate.release()

    def pass_gate(self, seconds: float) -> bool:
        """Wait until the processes may fetch; False if that takes longer; by a process."""
        if self._gate.acquire(timeout=seconds):
            self._gate.release()
            return True
        return False

    def heal(self, *, is_led: bool) -> None:
        """Replace what a process held that died, before it could pass it on or note it."""
        if self.is_open:
            self._gate.acquire(block=False)
            self._gate.release()
        is_free = self.leadership.acquire(block=False)
        if is_free:
            self.leadership.release()
        if is_free or is_led:
            self._led_at = monotonic()
        elif monotonic() > self._led_at + LEADERLESS:  # not only between two steps of a process
            self._led_at = monotonic()
            self.leadership.release()
