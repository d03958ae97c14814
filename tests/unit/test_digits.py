"""The brief form of a long integer agrees with its digits."""

import gmpy2
import pytest

from callers.digits import END_DIGITS, MAX_DIGITS_SHOWN, brief, count
from tests.support.seed import chance


def slowly(number: int) -> str:
    """Return the brief form, made from all digits."""
    digits = gmpy2.mpz(number).digits()
    length = len(digits.lstrip("-"))
    if length <= MAX_DIGITS_SHOWN:
        return str(digits)
    head = digits[: END_DIGITS + (number < 0)]
    return f"{head}…{digits[-END_DIGITS:]} ({length} digits)"


def test_any_integer() -> None:
    random = chance()
    for _ in range(300):
        number = random.randint(-1, 1) * random.getrandbits(random.randint(1, 20_000))

        assert brief(number) == slowly(number)


def test_integers_next_to_powers_of_ten_and_to_those_whose_head_ends_in_zeros() -> None:
    random = chance()
    exponents = {999, 1000, 1001, 5000, *(random.randint(1000, 9000) for _ in range(20))}
    for exponent in exponents:
        for head in (1, random.randint(2, 9), random.randint(10**18, 10**20)):
            for difference in (-(10**21), -2, -1, 0, 1, 2, 10 ** (exponent - 19)):
                number = head * 10**exponent + difference

                assert brief(number) == slowly(number)
                assert brief(-number) == slowly(-number)


@pytest.mark.parametrize("exponent", range(60))
def test_the_number_of_digits(exponent: int) -> None:
    assert count(10**exponent) == exponent + 1
    assert count(10**exponent - 1) == max(1, exponent)
    assert count(-(10**exponent)) == exponent + 1
