"""Tiles cover a product exactly once, and each is small enough for a worker."""

import numpy as np
import pytest

from callers import tiled
from callers.client import Client
from cluster.values import matrices
from tests.support.seed import chance


def test_tiles_cover_a_product_and_each_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    random = chance()
    for _ in range(300):
        rows, inner, columns = (random.choice((0, 1, 2, random.randrange(90))) for _ in range(3))
        dtypes = random.choices(["?", "i2", "f4", "f8", "c16", ">f8"], k=2)
        a, b = np.ones((rows, inner), dtypes[0]), np.ones((inner, columns), dtypes[1])
        max_bytes = random.choice((20_000, 200_000))
        monkeypatch.setenv("MAT_MUL_MAX_BYTES", str(max_bytes))
        product = matrices.product_of(a, b)
        grid = tiled.grid_of(a, b, product)
        covered = np.zeros((rows, columns), int)
        tiles = list(grid.tiles())
        for part, across in tiles:
            covered[part, across] += 1
            assert part.stop <= rows
            assert across.stop <= columns
            of_tile = matrices.product_of(a[part], b[:, across])

            assert covered[part, across].size == np.prod(of_tile.shape) > 0
            assert matrices.needed(a[part], b[:, across], of_tile) <= max_bytes / 4

        assert (covered == 1).all()
        assert len(tiles) == grid.size
        if rows * columns:
            assert len({part.start for part, _ in tiles}) >= min(rows, 2)
            assert len({across.start for _, across in tiles}) >= min(columns, 2)


def test_tiles_are_as_large_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAT_MUL_MAX_BYTES", str(4 * 8 * (2 * 100 * 50 + 100 * 100)))
    grid = tiled.grid_of_random(1000, 50)

    assert (grid.height, grid.width, grid.size) == (100, 100, 100)


def test_the_tiles_of_a_product_beyond_any_memory_are_counted_at_once() -> None:
    grid = tiled.grid_of_random(10**9, 1000)

    assert grid.size > 10**10
    assert next(grid.tiles())[0].start == 0


def test_not_even_one_element_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAT_MUL_MAX_BYTES", str(4 * 8 * 201))
    assert tiled.grid_of_random(10, 100).height == 1
    with pytest.raises(ValueError, match=r"need 1624 bytes, .* may take 1608 .*MAT_MUL_MAX_BYTES"):
        tiled.grid_of_random(10, 101)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.ones(3), np.ones((3, 2)), "two dimensions each"),
        (np.ones((2, 2, 3)), np.ones((3, 2)), "two dimensions each"),
        (np.ones((2, 3)), np.ones((2, 3)), r"\(2, 3\) and b of shape \(2, 3\) have no product"),
    ],
)
def test_operands_that_are_not_matrices_are_refused(
    a: matrices.Matrix, b: matrices.Matrix, words: str
) -> None:
    with Client() as client, pytest.raises(ValueError, match=words):
        tiled.multiply(client, a, b)


@pytest.mark.parametrize("out", [np.empty((3, 3)), np.empty((2, 2), int)])
def test_an_output_that_does_not_fit_is_refused(out: matrices.Matrix) -> None:
    a = np.ones((2, 3))
    with Client() as client, pytest.raises(ValueError, match="out must have shape"):
        tiled.multiply(client, a, a.T, out=out)
