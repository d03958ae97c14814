"""rq's tasks: plain functions."""

import os
import time

from bench.peers.protocol import MOMENT


def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


def who() -> int:
    """Return the id of this process, after a short sleep."""
    time.sleep(MOMENT)
    return os.getpid()
