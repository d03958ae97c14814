"""`python -m callers.mat_mul 20 20`: multiply matrices on the mat_mul workers."""

import sys
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import click
import numpy as np

from callers import tiled
from callers.client import Client
from callers.command import (
    MAX_ELEMENTS_SHOWN,
    NEGATIVE_NUMBERS,
    WholeNumber,
    call,
    show,
    timeout_option,
)
from callers.npy import Operand
from callers.output import open_output, out_option
from callers.progress import counters
from celery_streams.cli import run
from cluster import arguments
from cluster.resources import memory
from cluster.values import matrices
from cluster.values.matrices import Matrix


class Request(NamedTuple):
    """A requested product: its size, and how one worker or all of them compute it."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    #: Bytes of the product, and of operands and product together.
    nbytes: int
    needed: int
    #: Task name and arguments of the job for one worker.
    job: tuple[Any, ...]
    #: The function of `callers.tiled` for all workers; takes the client.
    tiled: Any
    #: Raises ValueError if the product cannot be split into tiles.
    check_tiles: Any


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("m", type=WholeNumber(), required=False)
@click.argument("n", type=WholeNumber(), required=False)
@click.option("--seed", type=WholeNumber(), help="Seed of the random matrices.")
@click.option("--a", type=Operand(), metavar="FILE", help="Read A from this .npy file.")
@click.option("--b", type=Operand(), metavar="FILE", help="Read B from this .npy file.")
@out_option("Write the product to this .npy file instead of printing it.")
@click.option(
    "--tiled",
    "in_tiles",
    is_flag=True,
    help="Split the product over all workers. Default: only if it is too large for one.",
)
@click.option(
    "--full/--brief",
    default=None,
    help="Print all elements, or only a matrix's corners. Default: all, but brief on a terminal.",
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
    """Print A·B for random matrices A (M by N) and B (N by M), uniform on [0, 1).

    With --a and --b, for matrices in .npy files, as numpy.save writes them.
    """
    request = requested(m, n, seed, a, b)
    in_tiles = in_tiles or request.needed > matrices.max_bytes()
    if in_tiles:
        request.check_tiles()
    with open_output(out) if out is not None else nullcontext() as output:
        if request.nbytes > memory() and not (output and output.is_new):
            raise click.UsageError(
                f"the product needs {arguments.brief(request.nbytes)} bytes, and this process may "
                f"use {memory()}: name a new file with --out"
            )
        if in_tiles:
            matrix = output.matrix(request.shape, request.dtype) if output else None
            product = call_in_tiles(request, matrix, timeout)
        else:
            product = np.asarray(call(*request.job, timeout=timeout))
        if output:
            output.save(product)
    if not out:
        if full is None:
            full = not sys.stdout.isatty()
        show(product, None if full else MAX_ELEMENTS_SHOWN)


def requested(
    m: int | None, n: int | None, seed: int | None, a: Matrix | None, b: Matrix | None
) -> Request:
    """Return the requested product; raise click.UsageError for arguments that do not define one."""
    if a is None and b is None:
        return requested_random(m, n, seed)
    if a is None or b is None:
        raise click.UsageError("--a and --b go together: name both files")
    if m is not None or seed is not None:
        raise click.UsageError("M, N and --seed are for random matrices, not for --a and --b")
    try:
        product = matrices.product_of(a, b)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Request(
        product.shape,
        product.dtype,
        product.nbytes,
        matrices.needed(a, b, product),
        ("mat_mul.tasks.multiply", a, b),
        partial(tiled.multiply, a=a, b=b),
        partial(tiled.grid_of, a, b, product),
    )


def requested_random(m: int | None, n: int | None, seed: int | None) -> Request:
    """Return the requested product of random matrices."""
    if m is None or n is None:
        raise click.UsageError(f"Missing argument '{'M' if m is None else 'N'}'.")
    return Request(
        (m, m),
        np.dtype(float),
        8 * m * m,
        matrices.needed_for_random(m, n),
        ("mat_mul.tasks.mat_mul", m, n, seed),
        partial(tiled.mat_mul, m=m, n=n, seed=seed),
        partial(tiled.grid_of_random, m, n),
    )


def call_in_tiles(request: Request, out: Matrix | None, timeout: float) -> Matrix:
    """Return the product, assembled from tiles; on a terminal, show how many are done."""
    with counters() as counter, Client() as client:
        on_tile = counter("tiles")
        product: Matrix = request.tiled(client, out=out, timeout=timeout, on_tile=on_tile)
    return product


if __name__ == "__main__":
    run(mat_mul)
