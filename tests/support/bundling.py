"""Calls that travel alone."""

from math import inf

from callers.bundling import Bundling


def no_bundles(bundling: Bundling, _: int) -> None:
    """Begin without bundles."""
    bundling.calls, bundling._most, bundling._has_learned, bundling._began = 1, 1, True, inf
