"""An array as text: a small one as numpy prints it, a large one in full."""

import math
from typing import Any

import numpy as np
import pytest

from callers.arrays import PIECE_SIZE, format_array


def test_a_small_array_is_shown_as_numpy_shows_it() -> None:
    array = np.random.default_rng(0).random((20, 30))

    assert "".join(format_array(array)) == np.array2string(array)
    assert "".join(format_array(array, 64)) == np.array2string(array, threshold=64, edgeitems=2)


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).random((3, 1000)),
        np.random.default_rng(0).random((2, 3, 700)),
        np.random.default_rng(0).random(2 * PIECE_SIZE + 1),
        np.arange(5000, dtype=np.int16).reshape(-1, 1),
    ],
    ids=lambda array: str(array.shape),
)
def test_all_elements_of_a_large_one_can_be_read_back(array: "np.ndarray[Any, Any]") -> None:
    text = "".join(format_array(array))

    assert text.count("[") == sum(math.prod(array.shape[:depth]) for depth in range(array.ndim))
    read = np.array(text.replace("[", " ").replace("]", " ").split(), array.dtype)
    np.testing.assert_array_equal(read.reshape(array.shape), array)
    corners = "".join(format_array(array, 64))
    assert "..." in corners
    assert len(corners) < 2000
