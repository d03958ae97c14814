"""`python -m callers.factorial 20000`: compute n! on the factorial worker."""

import sys
from contextlib import nullcontext

import click

from callers.command import NEGATIVE_NUMBERS, WholeNumber, call, text, timeout_option
from callers.digits import brief
from callers.output import open_output, out_option
from celery_streams.cli import run


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("n", type=WholeNumber())
@out_option("Write all digits to this file instead of printing them.")
@click.option(
    "--full/--brief",
    default=None,
    help="Print all digits, or only the first and last. Default: all, but brief on a terminal.",
)
@timeout_option
def factorial(n: int, out: str | None, full: bool | None, timeout: float) -> None:
    """Print N!, the exact product of the whole numbers from 1 to N."""
    with open_output(out) if out is not None else nullcontext() as output:
        value = call("factorial.tasks.factorial", n, timeout=timeout)
        if output:
            output.write(f"{text(value)}\n".encode())
            return
    if full is None:
        full = not sys.stdout.isatty()
    click.echo(text(value) if full else brief(value))


if __name__ == "__main__":
    run(factorial)
