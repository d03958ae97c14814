"""Chords: a member that is counted again, after a lost reply or a lost worker, counts once."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from celery import _state
from celery.backends import redis
from celery.states import PENDING, SUCCESS

from celery_streams.results.hooks import WaitingBackend
from celery_streams.scripts import ALLOW_OOM

_stock: Any = redis  # its type stubs leave out most of it
_celery: Any = _state

#: Default expiry of a chord's counters, in seconds from its last member's end: a chord may run far
#: longer than results are kept.
CHORD_EXPIRES = 30 * 86_400

#: Celery's script that counts a chord's members, made idempotent: a repeated call, after a lost
#: reply, returns the same claim on the callback. A complete chord's counters expire soon.
COUNT = f"""{ALLOW_OOM}
local function count() {_stock.CHORD_PART_RETURN_LUA} end
local counted = count()
if counted[3] and counted[4] == 0 and redis.call('GET', KEYS[6]) == ARGV[8] then
  counted[4] = 1
end
if counted[4] == 1 and tonumber(ARGV[9]) > 0 then
  for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
end
return counted
"""


class ChordBackend(WaitingBackend):
    """Celery's Redis result backend with chords that always complete."""

    # Attributes missing from the type stubs.
    client: Any
    expires: Any
    _chord_expires: Any
    _ensure_retryable: Callable[..., Any]

    @property
    def chord_expires(self) -> Any:
        """Expiry of a chord's counters, in seconds from the end of its last member."""
        if self._chord_expires is not None or not self.expires:
            stock: Any = super()
            return stock.chord_expires
        return max(self.expires, CHORD_EXPIRES)

    @cached_property
    def _chord_part_return_script(self) -> Any:
        script = self.client.register_script(COUNT)

        def count(keys: Any, args: Any, client: Any) -> Any:
            # Retried: if a count is lost with a connection, the chord never completes.
            arguments = [*args, int(self.expires or 0)]
            return self._ensure_retryable(self.ensure, script, (keys, arguments))

        return count

    def get_task_meta(self, task_id: str, **options: Any) -> Any:  # type: ignore[override]
        """Return a job's result.

        Celery's worker does not run a redelivered job that has succeeded. For a chord's member it
        gets PENDING while the chord is incomplete: the previous worker may have died before it
        counted the member. The second run counts it at most once.
        """
        meta = super().get_task_meta(task_id, **options)
        is_deduplication = _celery.task_join_will_block() and not _celery.get_current_task()
        if is_deduplication and meta["status"] == SUCCESS and meta.get("group_id"):
            size = self.get_key_for_group(meta["group_id"], ".s")
            if self.client.exists(size):
                return {"status": PENDING, "result": None}
        return meta
