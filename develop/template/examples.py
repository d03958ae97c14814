"""Examples of the tasks of `template`, and of arguments that they refuse."""

from cluster.examples import BadExample, Example

EXAMPLES = [
    Example("template", (7,), 7),
    Example("template", (10**5000,), 10**5000),
]

BAD_EXAMPLES = [
    BadExample("template", ("7",), TypeError, "n must be a whole number, not '7'"),
    BadExample("template", (-1,), ValueError, "n must be at least 0, not -1"),
]
