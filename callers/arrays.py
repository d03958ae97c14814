"""Arrays as text: abbreviated as numpy prints them, or with all elements, in pieces.

numpy's own formatting of millions of elements takes too much time and memory.
"""

from collections.abc import Iterator
from typing import Any

#: Elements up to which numpy formats an array.
MAX_NUMPY_ELEMENTS = 1000
#: Elements in one piece of text.
PIECE_SIZE = 10_000


def format_array(array: Any, limit: int | None = None) -> Iterator[str]:
    """Yield the text of an array in pieces; above `limit` elements, only the corners.

    Without a limit, a large array's elements have enough digits to be read back exactly.
    """
    if array.size > MAX_NUMPY_ELEMENTS and limit is None:
        yield from _rows(array, 0)
        return
    import numpy as np

    threshold = MAX_NUMPY_ELEMENTS if limit is None else limit
    yield np.array2string(np.asarray(array), threshold=threshold, edgeitems=2)


def _rows(array: Any, depth: int) -> Iterator[str]:
    if array.ndim == 1:
        for start in range(0, array.size, PIECE_SIZE):
            elements = " ".join(map(str, array[start : start + PIECE_SIZE].tolist()))
            yield f"{' ' if start else '['}{elements}"
        yield "]" if array.size else "[]"
        return
    # As in numpy's text: a newline between rows, another between the matrices of a stack.
    separator = "\n" * (array.ndim - 1) + " " * (depth + 1)
    yield "["
    for index, row in enumerate(array):
        if index:
            yield separator
        yield from _rows(row, depth + 1)
    yield "]"
