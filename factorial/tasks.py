"""What the family `factorial` does: exact factorials."""

import gmpy2
from celery import shared_task

from cluster import arguments, settings

#: The largest n: FACTORIAL_MAX_N can lower or raise it. 1,000,000! has 5.6 million digits.
MAX_N = 1_000_000


@shared_task
def factorial(n: int) -> int:
    """Return n! exactly, for 0 <= n <= FACTORIAL_MAX_N.

    Computed by GMP, whose algorithm is the odd part by prime swings (R. Luschny;
    https://gmplib.org/manual/Factorial-Algorithm). Raises TypeError for anything but an
    int, ValueError for an n that is negative or too large.
    """
    arguments.whole_number("n", n, least=0)
    most = settings.integer("FACTORIAL_MAX_N", MAX_N)
    if n > most:
        raise ValueError(f"n must be at most {most} (FACTORIAL_MAX_N), not {arguments.brief(n)}")
    return int(gmpy2.fac(n))
