"""Which state of a job may replace which; `scripts.STORE` decides it in Redis itself."""

from hashlib import sha1
from typing import Any

from celery.states import FAILURE, READY_STATES, REVOKED, SUCCESS

#: What a state does not replace. A job that was given up may turn out to have ended well.
_KEPT = {
    SUCCESS: frozenset({SUCCESS}),
    FAILURE: frozenset({SUCCESS, REVOKED}),
    REVOKED: frozenset({SUCCESS}),
}


class Transition:
    """What may be replaced by a state: all but what it never replaces, or `only` some states."""

    def __init__(self, state: str, *, only: frozenset[str] | None = None) -> None:
        self._names = _KEPT.get(state, READY_STATES) if only is None else only
        self._keeps = only is None

    def allows(self, stored: str) -> bool:
        """Tell whether this state may be replaced; the script decides alike."""
        return (stored in self._names) != self._keeps

    def arguments(self, stored: Any = "") -> tuple[str, str, str]:
        """Return what the script is told of the transition, and of what it found before."""
        if isinstance(stored, str):
            stored = stored.encode()
        digest = sha1(stored, usedforsecurity=False).hexdigest() if stored else ""
        return f" {' '.join(sorted(self._names))} ", "kept" if self._keeps else "only", digest
