"""Abbreviate a long integer: its first and last decimal digits, and their number.

Converting all digits of 1,000,000! takes a hundred times as long.
"""

import gmpy2

#: Digits up to which an integer is shown in full.
MAX_DIGITS_SHOWN = 1000
#: Digits shown at each end of a longer one.
END_DIGITS = 20
#: Precision of the leading digits' quotient, in bits: far more than END_DIGITS needs.
_PRECISION = 256


def brief(number: int) -> str:
    """Return an integer's digits; of a long one the first, the last and their number."""
    n = gmpy2.mpz(abs(number))
    if n < gmpy2.mpz(10) ** MAX_DIGITS_SHOWN:
        return str(gmpy2.mpz(number))
    length = count(n)
    sign = "-" if number < 0 else ""
    tail = n % 10**END_DIGITS
    return f"{sign}{_quotient(n, length - END_DIGITS)}…{tail:0{END_DIGITS}d} ({length} digits)"


def count(number: int) -> int:
    """Return an integer's number of decimal digits, without the sign."""
    n = gmpy2.mpz(abs(number))
    length: int = n.num_digits(10)  # GMP's count may be one too high
    return length if n == 0 or _quotient(n, length - 1) else length - 1


def _quotient(n: "gmpy2.mpz", places: int) -> int:
    """Return n // 10**places for n >= 0, a quotient of few digits.

    Bound it by floats; divide integers only where the bounds differ, next to a multiple of
    10**places.
    """
    down = gmpy2.context(precision=_PRECISION, round=gmpy2.RoundDown)
    up = gmpy2.context(precision=_PRECISION, round=gmpy2.RoundUp)
    with down:
        low_n, low_power = gmpy2.mpfr(n), gmpy2.mpfr(10) ** places
    with up:
        high_n, high_power = gmpy2.mpfr(n), gmpy2.mpfr(10) ** places
        high = high_n / low_power
    with down:  # int() of an mpfr rounds as the context says
        low = low_n / high_power
        if gmpy2.is_finite(high) and int(low) == int(high):
            return int(low)
    return int(n // gmpy2.mpz(10) ** places)
