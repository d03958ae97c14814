"""Arrays as text: in brief as numpy shows them, or all elements, written piece by piece.

Numpy's own text of a million elements takes seconds, and hundreds of bytes of memory each.
"""

from collections.abc import Iterator
from typing import Any

#: An array of up to so many elements is shown as numpy does.
SHOWN_BY_NUMPY = 1000
#: Elements of a piece.
PIECE = 10_000


def written(array: Any, most: int | None = None) -> Iterator[str]:
    """Yield the text of an array in pieces: of one with more than `most` elements the corners.

    All elements of a large one have as many digits as they need to be read back exactly.
    """
    if array.size > SHOWN_BY_NUMPY and most is None:
        yield from _rows(array, 0)
        return
    import numpy as np

    threshold = SHOWN_BY_NUMPY if most is None else most
    yield np.array2string(np.asarray(array), threshold=threshold, edgeitems=2)


def _rows(array: Any, depth: int) -> Iterator[str]:
    if array.ndim == 1:
        for start in range(0, array.size, PIECE):
            elements = " ".join(map(str, array[start : start + PIECE].tolist()))
            yield f"{' ' if start else '['}{elements}"
        yield "]" if array.size else "[]"
        return
    # As numpy does: a new line between rows, one more between matrices of a stack.
    between = "\n" * (array.ndim - 1) + " " * (depth + 1)
    yield "["
    for number, row in enumerate(array):
        if number:
            yield between
        yield from _rows(row, depth + 1)
    yield "]"
