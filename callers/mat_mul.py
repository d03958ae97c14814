"""`python -m callers.mat_mul 20 20`: ask the mat_mul workers for a product of matrices."""

import sys
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import click
import numpy as np

from callers import tiled
from callers.client import Client
from callers.command import (
    ELEMENTS_IN_FULL,
    NEGATIVE_NUMBERS,
    WholeNumber,
    ask,
    parts_shown,
    run,
    show,
    timeout_option,
)
from callers.npy import Operand
from callers.output import Output, out_option
from cluster import arguments, matrices
from cluster.matrices import Matrix
from cluster.resources import memory


class Question(NamedTuple):
    """A product that is asked for: what it will be, and how one worker, or many, are asked."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    #: Bytes of the product alone, and of operands and product together.
    nbytes: int
    needed: int
    #: A job's name and arguments.
    job: tuple[Any, ...]
    #: The same of `callers.tiled`, without the client.
    in_tiles: Any
    #: Raises ValueError where there are no tiles.
    grid: Any


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("m", type=WholeNumber(), required=False)
@click.argument("n", type=WholeNumber(), required=False)
@click.option("--seed", type=WholeNumber(), help="Make the same random matrices every time.")
@click.option("--a", type=Operand(), metavar="FILE", help="Take A from this .npy file, and")
@click.option("--b", type=Operand(), metavar="FILE", help="B from this, in place of M and N.")
@out_option("Write the product to this .npy file instead of printing it.")
@click.option(
    "--tiled",
    "in_tiles",
    is_flag=True,
    help="Split the product over all workers: by itself where it is too large for one.",
)
@click.option(
    "--full/--brief",
    default=None,
    help="All elements, or the corners of a large matrix: by default all, but on a terminal.",
)
@timeout_option
def mat_mul(
    m: int | None,
    n: int | None,
    seed: int | None,
    a: Matrix | None,
    b: Matrix | None,
    out: str | None,
    in_tiles: bool,
    full: bool | None,
    timeout: float,
) -> None:
    """Print A·B for random matrices A of M by N, and B of N by M, uniform on [0, 1).

    Or for those in two files, as numpy.save writes them.
    """
    question = asked(m, n, seed, a, b)
    in_tiles = in_tiles or question.needed > matrices.max_bytes()
    if in_tiles:
        question.grid()
    with Output(out) if out is not None else nullcontext() as output:
        if question.nbytes > memory() and not (output and output.is_new):
            raise click.UsageError(
                f"the product needs {arguments.brief(question.nbytes)} bytes, and this process may "
                f"use {memory()}: name a new file with --out"
            )
        if in_tiles:
            product = output.matrix(question.shape, question.dtype) if output else None
            product = asked_in_tiles(question, product, timeout)
        else:
            product = np.asarray(ask(*question.job, timeout=timeout))
            if output:
                output.save(product)
    if not out:
        if full is None:
            full = not sys.stdout.isatty()
        show(product, None if full else ELEMENTS_IN_FULL)


def asked(
    m: int | None, n: int | None, seed: int | None, a: Matrix | None, b: Matrix | None
) -> Question:
    """Return what is asked for: raises click.UsageError for too much, too little or no product."""
    if a is None and b is None:
        return asked_of_random(m, n, seed)
    if a is None or b is None:
        raise click.UsageError("--a and --b go together: name both files")
    if m is not None or seed is not None:
        raise click.UsageError("M, N and --seed are for random matrices, not for --a and --b")
    try:
        product = matrices.product_of(a, b)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Question(
        product.shape,
        product.dtype,
        product.nbytes,
        matrices.needed(a, b, product),
        ("mat_mul.tasks.multiply", a, b),
        partial(tiled.multiply, a=a, b=b),
        partial(tiled.grid_of, a, b, product),
    )


def asked_of_random(m: int | None, n: int | None, seed: int | None) -> Question:
    """Return the question for a product of random matrices."""
    if m is None or n is None:
        raise click.UsageError(f"Missing argument '{'M' if m is None else 'N'}'.")
    return Question(
        (m, m),
        np.dtype(float),
        8 * m * m,
        matrices.needed_for_random(m, n),
        ("mat_mul.tasks.mat_mul", m, n, seed),
        partial(tiled.mat_mul, m=m, n=n, seed=seed),
        partial(tiled.grid_of_random, m, n),
    )


def asked_in_tiles(question: Question, out: Matrix | None, timeout: float) -> Matrix:
    """Return the product, put together of tiles; on a terminal, show how many came."""
    with parts_shown("tiles") as on_tile, Client() as client:
        product: Matrix = question.in_tiles(client, out=out, timeout=timeout, on_tile=on_tile)
    return product


if __name__ == "__main__":
    run(mat_mul)
