"""The values of the examples of `callers.canvas`, on any cluster."""

import math
from typing import Any

VALUES: dict[str, Any] = {
    "chain": 16,
    "group": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
    "chord": 90,
    "map": [3, 7, 11],
    "starmap": [3, 7, 11],
    "chunks": [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]],
    "link": 20,
    "link_error": "OverflowError: int too large to convert to float",
    "nested": 19,
    "families_chain": 120,
    "families_chord": sum(map(math.factorial, range(1, 11))),
}
