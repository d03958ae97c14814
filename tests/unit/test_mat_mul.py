"""Products of any operands that numpy multiplies, and of their parts."""

import numpy as np
import pytest

from cluster.values import matrices
from mat_mul.tasks import mat_mul, multiply, tile
from tests.support.seed import chance

#: Numpy's numeric types, of both byte orders.
DTYPES = ["?", "i1", "u1", "i4", ">i8", "u8", "e", "f", "d", ">f8", "g", "F", "D", "G"]
#: Shapes of operands that have a product: vectors, matrices and stacks.
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 2)),
    ((0,), (0,)),
    ((3,), (5, 3, 2)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), SHAPES)
def test_a_product_is_numpys(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(chance().randrange(2**32))
    for a_dtype, b_dtype in zip(DTYPES, rng.permutation(DTYPES), strict=True):
        a = rng.integers(0, 9, a_shape).astype(a_dtype)
        b = rng.integers(0, 9, b_shape).astype(b_dtype)
        expected = np.asarray(np.matmul(a, b))
        product = np.asarray(multiply(a, b))
        predicted = matrices.product_of(a, b)

        assert product.dtype == expected.dtype == predicted.dtype
        assert product.shape == expected.shape == predicted.shape
        np.testing.assert_array_equal(product, expected)


def test_operands_that_must_be_converted_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    flags, numbers = np.ones((10, 10), bool), np.ones((10, 10))
    monkeypatch.setenv("MAT_MUL_MAX_BYTES", str(100 * (8 + 8 + 1 + 8)))
    assert multiply(flags, numbers).sum() == 1000

    monkeypatch.setenv("MAT_MUL_MAX_BYTES", str(100 * (8 + 8 + 1 + 8) - 1))
    with pytest.raises(ValueError, match=r"at most 2499 bytes \(MAT_MUL_MAX_BYTES\), not 2500"):
        multiply(flags, numbers)


def test_what_is_too_large_for_a_float_is_infinite() -> None:
    assert multiply([1e300], [1e300]) == np.inf


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("m", [1, 40, 3000])
def test_a_tile_is_the_part_of_the_whole(m: int, n: int) -> None:
    random = chance()
    whole = mat_mul(m, n, 7)
    for _ in range(5):
        top, left = random.randrange(m), random.randrange(m)
        bottom, right = random.randint(top + 1, m), random.randint(left + 1, m)
        part = tile(m, n, 7, [top, bottom], [left, right])

        np.testing.assert_allclose(part, whole[top:bottom, left:right], rtol=1e-12)


def test_a_tile_of_a_product_beyond_any_memory() -> None:
    m = 10**12
    part = tile(m, 2, 7, [m - 1, m], [m - 3, m])
    bits = np.random.PCG64(7)
    bits.advance(2 * m - 2)
    a = np.random.Generator(bits).random(2)
    bits.advance(m - 3)
    first = np.random.Generator(bits).random(3)
    bits.advance(m - 3)
    second = np.random.Generator(bits).random(3)

    np.testing.assert_allclose(part, [a[0] * first + a[1] * second], rtol=1e-12)
