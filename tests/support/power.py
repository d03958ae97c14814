"""The family that tests add: what an engineer writes after `make family NAME=power`."""

TASKS = '''\
"""Task of the family `power`."""

from typing import Annotated

from celery import shared_task
from msgspec import Meta

from cluster import arguments


@shared_task
def power(base: int, exponent: Annotated[int, Meta(ge=0)] = 2) -> int:
    """Return `base` to the power of `exponent`."""
    arguments.whole_number("exponent", exponent, minimum=0)
    return int(base**exponent)
'''
EXAMPLES = '''\
"""Examples of the tasks of `power`, and of arguments that they refuse."""

from cluster.examples import BadExample, Example

EXAMPLES = [
    Example("power", (2, 10), 1024),
    Example("power", (7,), 49),
]

BAD_EXAMPLES = [
    BadExample("power", (2, -1), ValueError, "exponent must be at least 0, not -1"),
]
'''
OTHER_TASKS = '''\
"""Tasks of the family `power`."""

from typing import Annotated

from celery import shared_task
from msgspec import Meta

from cluster import arguments

@shared_task
def raised(base: int, *, exponent: Annotated[int, Meta(ge=0)] = 2) -> int:
    """Return `base` to the power of `exponent`."""
    arguments.whole_number("exponent", exponent, minimum=0)
    return int(base**exponent)


@shared_task
def root(power: float) -> float:
    """Return the square root of `power`."""
    return float(arguments.number("power", power)) ** 0.5
'''
OTHER_EXAMPLES = '''\
"""Examples of the tasks of `power`, and of arguments that they refuse."""

from cluster.examples import BadExample, Example

EXAMPLES = [
    Example("raised", (2,), 1024, {"exponent": 10}),
    Example("root", (49,), 7.0),
]

BAD_EXAMPLES = [
    BadExample("raised", (2,), ValueError, "exponent must be at least 0, not -1", {"exponent": -1}),
    BadExample("root", ("x",), TypeError, "power must be a number, not 'x'"),
]
'''
