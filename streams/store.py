"""Which state of a job may replace which, decided by Redis itself, in one round trip."""

from hashlib import sha1
from typing import Any

from celery.states import FAILURE, PENDING, READY_STATES, RETRY, REVOKED, STARTED, SUCCESS

from streams.scripts import FOR_ACCEPTED

#: Bytes up to which a sender is told the result; of a larger one, its key.
LARGE = 64 * 1024

#: Store a state and announce it, unless it must not replace what is there.
#:
#: KEYS: the job's key. ARGV: the payload; its seconds, 0 for ever; the sender's channel, or
#: nothing; names of states between spaces; `kept` if these are not replaced, `only` if no
#: other is; the digest of what may be replaced whatever it is, or nothing.
#: Returns 1 if it is stored, 0 if not, or what is there: its state is found here in JSON alone.
SCRIPT = f"""{FOR_ACCEPTED}
local head = redis.call('GETRANGE', KEYS[1], 0, 63)
if head ~= '' then
  local state = string.match(head, '^{{"status": ?"([^"\\\\]*)"')
  if state then
    local named = string.find(ARGV[4], ' ' .. state .. ' ', 1, true) ~= nil
    if named == (ARGV[5] == 'kept') then return 0 end
  else
    local stored = redis.call('GET', KEYS[1])
    if redis.sha1hex(stored) ~= ARGV[6] then return stored end
  end
end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
-- No right to announce it is no reason to lose it: whoever waits reads the key, too.
redis.pcall('PUBLISH', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then
  redis.pcall('PUBLISH', ARGV[3], #ARGV[1] <= {LARGE} and ARGV[1] or KEYS[1])
end
return 1
"""

#: What a state does not replace. A job that was given up may turn out to have ended well.
_KEPT = {
    SUCCESS: frozenset({SUCCESS}),
    FAILURE: frozenset({SUCCESS, REVOKED}),
    REVOKED: frozenset({SUCCESS}),
}
#: What STARTED replaces where it is said of a job by somebody who looks on.
_NOT_STARTED = frozenset({PENDING, RETRY, STARTED})


class Rule:
    """What may be replaced by a state."""

    def __init__(self, state: str, *, looked_on: bool = False) -> None:
        self._names = _NOT_STARTED if looked_on else _KEPT.get(state, READY_STATES)
        self._keeps = not looked_on

    def allows(self, stored: str) -> bool:
        """Tell whether this state may be replaced; the script decides alike."""
        return (stored in self._names) != self._keeps

    def arguments(self, stored: Any = "") -> tuple[str, str, str]:
        """Return what the script is told of the rule, and of what it found before."""
        if isinstance(stored, str):
            stored = stored.encode()
        digest = sha1(stored, usedforsecurity=False).hexdigest() if stored else ""
        return f" {' '.join(sorted(self._names))} ", "kept" if self._keeps else "only", digest
