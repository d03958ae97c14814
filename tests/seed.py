"""Chance in tests, of a seed that a failing test prints."""

import random
import sys
from typing import Any


def shuffle(items: list[Any]) -> None:
    """Put a list into an order that is another in each run."""
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    random.Random(seed).shuffle(items)  # noqa: S311 - an order, no secret
