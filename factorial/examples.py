"""Examples of the tasks of `factorial`, and of arguments that they refuse."""

from cluster.examples import BadExample, Digest, Example

#: SHA-256 of the decimal text of n!.
DIGESTS = {
    20_000: Digest("eaae0cdb4ba46ca603da90766b63f69dd6cbd25340725ce15ba373d99aea5cf6"),
    100_000: Digest("820239691ef9b4887957093bb745a1ac33d3184b272db3e9a0d0a37062a13399"),
}

EXAMPLES = [
    Example("factorial", (0,), 1),
    Example("factorial", (20,), 2432902008176640000),
    Example("factorial", (20_000,), DIGESTS[20_000]),
    Example("factorial", (100_000,), DIGESTS[100_000]),
]

BAD_EXAMPLES = [
    BadExample("factorial", (-1,), ValueError, "n must be at least 0, not -1"),
    BadExample("factorial", (2.5,), TypeError, "n must be a whole number, not 2.5"),
    BadExample("factorial", (float("nan"),), TypeError, "not nan"),
    BadExample("factorial", (True,), TypeError, "not True"),
    BadExample("factorial", ("7",), TypeError, "not '7'"),
    BadExample("factorial", (1_000_001,), ValueError, "FACTORIAL_MAX_N"),
    BadExample("factorial", (10**6000,), ValueError, "not an integer of 19932 bits"),
]
