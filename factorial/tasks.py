"""Task of the family `factorial`: exact factorials."""

from typing import Annotated

import gmpy2
from celery import shared_task
from msgspec import Meta

from cluster import arguments, settings

#: Default of FACTORIAL_MAX_N, the largest n. 1,000,000! has 5.6 million digits.
MAX_N = 1_000_000


@shared_task
def factorial(n: Annotated[int, Meta(ge=0)]) -> int:
    """Return n! exactly, for 0 <= n <= FACTORIAL_MAX_N.

    GMP computes the odd part by prime swings (R. Luschny;
    https://gmplib.org/manual/Factorial-Algorithm). Raise TypeError if n is not an int,
    ValueError if it is out of range.
    """
    arguments.whole_number("n", n, minimum=0)
    limit = settings.integer("FACTORIAL_MAX_N", MAX_N)
    if n > limit:
        raise arguments.out_of_bounds("n", n, f"at most {limit} (FACTORIAL_MAX_N)")
    return int(gmpy2.fac(n))
