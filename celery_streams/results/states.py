"""Allowed transitions between the states of a job; `scripts.STORE` enforces them in Redis."""

from hashlib import sha1
from typing import Any

from celery.states import FAILURE, READY_STATES, REVOKED, SUCCESS

#: States that a final state does not replace. A failed or revoked job may still succeed.
_NOT_REPLACED = {
    SUCCESS: frozenset({SUCCESS}),
    FAILURE: frozenset({SUCCESS, REVOKED}),
    REVOKED: frozenset({SUCCESS}),
}


class Transition:
    """A change to `state` from any state that it may replace, or only from those in `only`."""

    def __init__(self, state: str, *, only: frozenset[str] | None = None) -> None:
        self._names = _NOT_REPLACED.get(state, READY_STATES) if only is None else only
        self._excludes = only is None

    def allows(self, stored: str) -> bool:
        """Return True if the state `stored` may be replaced, by the same rule as the script."""
        return (stored in self._names) != self._excludes

    def arguments(self, stored: Any = "") -> tuple[str, str, str]:
        """Return the script's arguments; `stored` is a payload that it may replace in any case."""
        if isinstance(stored, str):
            stored = stored.encode()
        digest = sha1(stored, usedforsecurity=False).hexdigest() if stored else ""
        return f" {' '.join(sorted(self._names))} ", "kept" if self._excludes else "only", digest
