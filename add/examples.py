"""Examples of the tasks of `add`, and of arguments that they refuse."""

from cluster.examples import BadExample, Example

EXAMPLES = [
    Example("add", (4, 6), 10),
    Example("add", (-1, 0.5), -0.5),
    Example("add", (1 + 2j, 1), 2 + 2j),
    Example("add", (10**5000, -1), 10**5000 - 1),
    Example("tsum", ([1, 2.5, 3],), 6.5),
    Example("tsum", ([],), 0),
    Example("tsum", ([10**5000, 1],), 10**5000 + 1),
    Example("longtime_add", (4, 6), 10, {"seconds": 0.1}),
    Example("unsteady_add", (4, 6, 0), 10),
]

BAD_EXAMPLES = [
    BadExample("add", ("4", 6), TypeError, "x must be a number, not '4'"),
    BadExample("add", (True, 6), TypeError, "x must be a number, not True"),
    BadExample("add", (4, None), TypeError, "y must be a number, not None"),
    BadExample("add", (4,), TypeError, "missing 1 required positional argument"),
    BadExample("add", (4, 6, 7), TypeError, "takes 2 positional arguments"),
    BadExample("add", (10**400, 0.5), OverflowError, "too large"),
    BadExample("tsum", (7,), TypeError, "numbers must be a list, not 7"),
    BadExample("tsum", ([1, "2"],), TypeError, "numbers[1] must be a number"),
    BadExample("longtime_add", (1, 2, -1), ValueError, "MAX_WAIT"),
    BadExample("longtime_add", (1, 2, 1e9), ValueError, "MAX_WAIT"),
    BadExample("longtime_add", (1, 2, float("nan")), ValueError, "not nan"),
    BadExample("unsteady_add", (4, 6, -1), ValueError, "failures must be at least 0"),
    BadExample("error_of", (7,), TypeError, "job_id must be a string, not 7"),
]
