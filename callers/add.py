"""`python -m callers.add 4 6`: compute a sum on the add worker."""

import click

from callers.command import NEGATIVE_NUMBERS, Number, call, text, timeout_option
from celery_streams.cli import run


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("x", type=Number())
@click.argument("y", type=Number())
@timeout_option
def add(x: complex, y: complex, timeout: float) -> None:
    """Print X + Y: whole numbers of any size, decimal or complex numbers (1+2j)."""
    click.echo(text(call("add.tasks.add", x, y, timeout=timeout)))


if __name__ == "__main__":
    run(add)
