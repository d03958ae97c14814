"""`python -m callers.factorial 20000`: ask the factorial worker for n!."""

import sys
from contextlib import nullcontext

import click

from callers.command import NEGATIVE_NUMBERS, WholeNumber, ask, run, text, timeout_option
from callers.digits import brief
from callers.output import Output, out_option


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("n", type=WholeNumber())
@out_option("Write all digits to this file instead of printing them.")
@click.option(
    "--full/--brief",
    default=None,
    help="All digits, or their number with the first and last: by default all, but on a terminal.",
)
@timeout_option
def factorial(n: int, out: str | None, full: bool | None, timeout: float) -> None:
    """Print N!, the product of all whole numbers from 1 to N, exactly."""
    with Output(out) if out is not None else nullcontext() as output:
        value = ask("factorial.tasks.factorial", n, timeout=timeout)
        if output:
            output.write(f"{text(value)}\n".encode())
            return
    if full is None:
        full = not sys.stdout.isatty()
    click.echo(text(value) if full else brief(value))


if __name__ == "__main__":
    run(factorial)
