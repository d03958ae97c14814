"""Chance in tests, of a seed that a failing test prints."""

import os
import random
import sys
from typing import Any


def chance() -> random.Random:
    """Return a source of numbers that are others in each run, or those of SEED."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)  # noqa: S311 - a test's input, no secret


def shuffle(items: list[Any]) -> None:
    """Put a list into an order that is another in each run."""
    chance().shuffle(items)
