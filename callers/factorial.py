"""`python -m callers.factorial 20000`: ask the factorial worker for n!."""

import sys

import click

from callers.command import NEGATIVE_NUMBERS, WholeNumber, ask, run, text, timeout_option

#: A terminal shows a number of more digits than this by its head and tail.
DIGITS_IN_FULL = 1000
#: How many digits the head shows, and the tail.
DIGITS_SHOWN = 20


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("n", type=WholeNumber())
@click.option(
    "--full/--brief",
    default=None,
    help="All digits, or their number with the first and last: by default all, but on a terminal.",
)
@timeout_option
def factorial(n: int, full: bool | None, timeout: float) -> None:
    """Print N!, the product of all whole numbers from 1 to N, exactly."""
    digits = text(ask("factorial.tasks.factorial", n, timeout=timeout))
    if full is None:
        full = not sys.stdout.isatty()
    click.echo(digits if full else brief(digits))


def brief(digits: str) -> str:
    """Return a number's digits, or of a long one how many there are, the first and the last."""
    if len(digits) <= DIGITS_IN_FULL:
        return digits
    return f"{digits[:DIGITS_SHOWN]}…{digits[-DIGITS_SHOWN:]} ({len(digits)} digits)"


if __name__ == "__main__":
    run(factorial)
