"""A long integer in brief: the first and the last of its decimal digits, and how many there are.

All digits of 1,000,000! take half a second; these take a few milliseconds.
"""

import gmpy2

#: An integer of up to so many digits is shown in full.
IN_FULL = 1000
#: How many digits the head shows, and the tail.
SHOWN = 20
#: Bits of the quotient that gives the head: far more than SHOWN digits need.
_PRECISION = 256


def brief(number: int) -> str:
    """Return the digits of an integer, of a long one the first, the last and their number."""
    n = gmpy2.mpz(abs(number))
    if n < gmpy2.mpz(10) ** IN_FULL:
        return str(gmpy2.mpz(number))
    length = count(n)
    sign = "-" if number < 0 else ""
    tail = n % 10**SHOWN
    return f"{sign}{_quotient(n, length - SHOWN)}…{tail:0{SHOWN}d} ({length} digits)"


def count(number: int) -> int:
    """Return how many decimal digits an integer has, its sign not counted."""
    n = gmpy2.mpz(abs(number))
    most: int = n.num_digits(10)  # GMP gives one too many at times
    return most if n == 0 or _quotient(n, most - 1) else most - 1


def _quotient(n: "gmpy2.mpz", places: int) -> int:
    """Return n // 10**places for n >= 0, whose value has few digits.

    From floats that bound it from below and from above; exactly where these do not agree,
    which is next to multiples of 10**places alone.
    """
    down = gmpy2.context(precision=_PRECISION, round=gmpy2.RoundDown)
    up = gmpy2.context(precision=_PRECISION, round=gmpy2.RoundUp)
    with down:
        low_n, low_power = gmpy2.mpfr(n), gmpy2.mpfr(10) ** places
    with up:
        high_n, high_power = gmpy2.mpfr(n), gmpy2.mpfr(10) ** places
        high = high_n / low_power
    with down:  # gmpy2's int() rounds as its context says
        low = low_n / high_power
        if gmpy2.is_finite(high) and int(low) == int(high):
            return int(low)
    return int(n // gmpy2.mpz(10) ** places)
