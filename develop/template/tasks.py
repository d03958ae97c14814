"""Task of the family `template`."""

from typing import Annotated

from celery import shared_task
from msgspec import Meta

from cluster import arguments


@shared_task
def template(n: Annotated[int, Meta(ge=0)]) -> int:
    """Return n, until the family has work of its own.

    Raise TypeError if n is not an int, ValueError if it is negative.
    """
    return arguments.whole_number("n", n, minimum=0)
