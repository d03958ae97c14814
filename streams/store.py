"""Which state of a job may replace which; `scripts.STORE` decides it in Redis itself."""

from hashlib import sha1
from typing import Any

from celery.states import FAILURE, PENDING, READY_STATES, RETRY, REVOKED, STARTED, SUCCESS

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
