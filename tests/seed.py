"""Chance in tests, of a seed that a failing test prints."""

import random
import sys
from typing import Any


def chance(seed: int | None = None) -> random.Random:
    """Return a source of numbers that are others in each run, or those of a seed."""
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)  # noqa: S311 - a test's input, no secret


def shuffle(items: list[Any]) -> None:
    """Put a list into an order that is another in each run."""
    chance().shuffle(items)
