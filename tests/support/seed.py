"""Random input of tests, from a seed that a failing test prints."""

import os
import random
import sys
from typing import Any


def chance() -> random.Random:
    """Return a random generator, seeded by SEED if it is set."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)  # noqa: S311 - a test's input, no secret


def shuffle(items: list[Any]) -> None:
    """Shuffle a list."""
    chance().shuffle(items)
