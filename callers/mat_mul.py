"""`python -m callers.mat_mul 20 20`: ask the mat_mul worker for a product of random matrices."""

import sys
from pathlib import Path

import click
import numpy as np

from callers.command import NEGATIVE_NUMBERS, WholeNumber, ask, run, timeout_option

#: A terminal shows a matrix of more elements than this by its corners.
ELEMENTS_IN_FULL = 64


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("m", type=WholeNumber())
@click.argument("n", type=WholeNumber())
@click.option("--seed", type=WholeNumber(), help="Make the same random matrices every time.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the product to this .npy file instead of printing it.",
)
@click.option(
    "--full/--brief",
    default=None,
    help="All elements, or the corners of a large matrix: by default all, but on a terminal.",
)
@timeout_option
def mat_mul(
    m: int, n: int, seed: int | None, out: Path | None, full: bool | None, timeout: float
) -> None:
    """Print A·B for random matrices A of M by N, and B of N by M, uniform on [0, 1)."""
    if out and not out.parent.is_dir():
        raise click.UsageError(f"there is no folder {str(out.parent)!r} to write {out.name} to")
    product = ask("mat_mul.tasks.mat_mul", m, n, seed, timeout=timeout)
    if out:
        with out.open("wb") as file:
            np.save(file, product)
    else:
        if full is None:
            full = not sys.stdout.isatty()
        shown = sys.maxsize if full else ELEMENTS_IN_FULL
        click.echo(np.array2string(product, threshold=shown, edgeitems=2))


if __name__ == "__main__":
    run(mat_mul)
