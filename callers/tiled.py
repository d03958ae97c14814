"""A product too large for one worker: its tiles are computed by all of them, and joined here.

`tiled.mat_mul(client, 50_000, 1000)`, `tiled.multiply(client, a, b)`
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import isqrt
from time import monotonic, sleep
from typing import Any, NamedTuple

import numpy as np

from callers.client import (
    CONNECT_TIMEOUT,
    NOTICE_TIMEOUT,
    TIMEOUT,
    Client,
    check_timeout,
)
from callers.late import RETRY_INTERVAL
from cluster import arguments, broker, matrices, options
from cluster.errors import ClusterError, JobTimeout
from cluster.matrices import Matrix, Product

#: Tiles that are computed, or wait, at a time: what Redis and this process hold of them.
IN_FLIGHT = 4
#: A tile's operands and product take at most this part of MAT_MUL_MAX_BYTES.
PART = 4
#: Seconds that tiles which run have to end after one failed, for their results to be dropped.
ENDING_TIMEOUT = 10.0

#: Told after each tile how many came, of how many.
OnTile = Callable[[int, int], object]


class Grid(NamedTuple):
    """A product of so many rows and columns, cut into tiles of equal size but for the last."""

    rows: int
    columns: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """The number of tiles."""
        return _parts(self.rows, self.height) * _parts(self.columns, self.width)

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield the rows and the columns of each tile, row by row."""
        for top in range(0, self.rows, self.height):
            for left in range(0, self.columns, self.width):
                bottom = min(top + self.height, self.rows)
                yield slice(top, bottom), slice(left, min(left + self.width, self.columns))


def mat_mul(
    client: Client,
    m: int,
    n: int,
    seed: int | None = None,
    *,
    out: Matrix | None = None,
    timeout: float = TIMEOUT,
    on_tile: OnTile | None = None,
) -> Matrix:
    """Return what the task `mat_mul` gives for any m, to rounding: in `out`, if that is given.

    `timeout` is in seconds, for all of it. Raises ValueError where not even one element of
    the product can be computed within MAT_MUL_MAX_BYTES, and what `client.call` raises.
    """
    grid = grid_of_random(m, n)
    seed = secrets.randbits(128) if seed is None else arguments.whole_number("seed", seed, least=0)

    def job(rows: slice, columns: slice) -> Any:
        ends = [rows.start, rows.stop], [columns.start, columns.stop]
        return client.signature("mat_mul.tasks.tile", m, n, seed, *ends)

    out = _place(out, (m, m), np.dtype(float))
    return _Assembly(client, grid, job, out, timeout, on_tile).run()


def multiply(
    client: Client,
    a: Matrix,
    b: Matrix,
    *,
    out: Matrix | None = None,
    timeout: float = TIMEOUT,
    on_tile: OnTile | None = None,
) -> Matrix:
    """Return a·b for matrices of any size, to rounding: in `out`, if that is given.

    They may be mapped from files, and `out`, too. Raises what `mat_mul` raises.
    """
    product = matrices.product_of(a, b)
    grid = grid_of(a, b, product)

    def job(rows: slice, columns: slice) -> Any:
        return client.signature("mat_mul.tasks.multiply", a[rows], b[:, columns])

    out = _place(out, product.shape, product.dtype, a, b)
    return _Assembly(client, grid, job, out, timeout, on_tile).run()


def grid_of_random(m: int, n: int) -> Grid:
    """Return the tiles of the product of random A (m x n) and B (n x m)."""
    arguments.whole_number("m", m, least=1)
    arguments.whole_number("n", n, least=1)
    return _grid(m, m, 8 * n, 8 * n, 8)


def grid_of(a: Matrix, b: Matrix, product: Product) -> Grid:
    """Return the tiles of a product of two matrices."""
    if a.ndim != b.ndim or a.ndim != 2:  # noqa: PLR2004 - a matrix's dimensions
        raise ValueError("a and b must have two dimensions each to be multiplied in tiles")
    inner = a.shape[1]
    rows, columns = product.shape
    item = product.dtype.itemsize
    return _grid(rows, columns, inner * product.a_item, inner * product.b_item, item)


def _grid(rows: int, columns: int, row: int, column: int, element: int) -> Grid:
    """Return tiles that are nearly square, of a product whose parts take so many bytes."""
    most = matrices.max_bytes() // PART
    if row + column + element > most:
        raise ValueError(
            f"one row of a and one column of b need {arguments.brief(row + column + element)} "
            f"bytes, and a tile of the product may take {most} (a quarter of MAT_MUL_MAX_BYTES)"
        )
    # The largest square: element·side² + (row + column)·side <= most.
    both = row + column
    side = (isqrt(both * both + 4 * element * most) - both) // (2 * element)
    height = min(side, _parts(rows, 2)) or 1
    width = min((most - height * row) // (column + height * element), _parts(columns, 2)) or 1
    height = min((most - width * column) // (row + width * element), _parts(rows, 2)) or 1
    return Grid(
        rows,
        columns,
        _parts(rows, _parts(rows, height)) or 1,
        _parts(columns, _parts(columns, width)) or 1,
    )


def _parts(whole: int, size: int) -> int:
    """Return whole / size, rounded up; 0 of nothing."""
    return -(-whole // size) if whole else 0


def _place(
    out: Matrix | None, shape: tuple[int, ...], dtype: "np.dtype[Any]", *operands: Matrix
) -> Matrix:
    if out is None:
        return np.empty(shape, dtype)
    if not out.flags.writeable:
        raise ValueError("out must be writable")
    if any(np.may_share_memory(out, operand) for operand in operands):
        raise ValueError("out must not be a part of an operand: later tiles still need that")
    if out.shape != shape or not np.can_cast(dtype, out.dtype, "same_kind"):
        raise ValueError(
            f"out must be of shape {shape} for {dtype}, not of {out.shape} for {out.dtype}"
        )
    return out


class _Assembly:
    """One product on its way: the tiles in flight, and those that have come."""

    def __init__(
        self,
        client: Client,
        grid: Grid,
        job: Callable[[slice, slice], Any],
        out: Matrix,
        timeout: float,
        on_tile: OnTile | None,
    ) -> None:
        self.client = client
        self.grid = grid
        self.job = job
        self.out = out
        self.timeout = timeout
        self.deadline = monotonic() + check_timeout(timeout)
        self.on_tile = on_tile
        self.came = 0
        #: Each job that was submitted, and its tile's place.
        self.in_flight: dict[Any, tuple[slice, slice]] = {}

    def run(self) -> Matrix:
        """Submit the tiles, a few at a time, and put each into its place."""
        broker.connect(self.client.app, min(self.timeout, CONNECT_TIMEOUT))
        waiting = self.grid.tiles()
        try:
            if self.on_tile:
                self.on_tile(0, self.grid.size)
            while self.came < self.grid.size:
                while len(self.in_flight) < IN_FLIGHT and (place := next(waiting, None)):
                    self._submit(place)
                self._put(self._first_done(self.deadline))
        except BaseException:  # Ctrl-C, too; a second one ends the waiting for what runs
            self._end(min(self.deadline, monotonic() + ENDING_TIMEOUT))
            raise
        return self.out

    def _submit(self, place: tuple[slice, slice]) -> None:
        left = max(self.deadline - monotonic(), 0)
        # A tile whose caller is gone is not computed; clocks differ.
        job = self.client.submit(self.job(*place).set(expires=left + options.CLOCK_SKEW))
        # Known to the backend as one that is waited for: it does not keep what comes of it.
        job.then(_ignore, on_error=_ignore, weak=True)
        self.in_flight[job] = place

    def _put(self, job: Any) -> None:
        # The job has ended, well or not: its value is there, or takes its time to be fetched.
        value = self.client.get(job, max(self.deadline - monotonic(), NOTICE_TIMEOUT))
        self.out[self.in_flight[job]] = value
        del self.in_flight[job]
        job.forget()
        self.came += 1
        if self.on_tile:
            self.on_tile(self.came, self.grid.size)

    def _first_done(self, deadline: float) -> Any:
        """Wait until a tile has ended, whichever it is; raises JobTimeout at the deadline."""
        while True:
            left = deadline - monotonic()
            try:
                job = self._ended(left)
            except broker.AWAY as error:
                if left <= 0:
                    raise broker.unreachable(self.client.app, error) from None
                sleep(min(left, RETRY_INTERVAL))
                continue
            if job:
                return job
            if left <= 0:
                raise JobTimeout(self._why_late())

    def _ended(self, left: float) -> Any:
        """Return a job that has ended, or None after a notice, which need not be of ours."""
        # Read every time: a broken connection may have lost the notice.
        for job in self.in_flight:
            if job.ready():
                return job
        if left > 0:
            backend: Any = self.client.app.backend
            with suppress(TimeoutError):
                backend.result_consumer.drain_events(timeout=min(left, NOTICE_TIMEOUT))
        return None

    def _why_late(self) -> str:
        late = f"{self.came} of {self.grid.size} tiles came within {self.timeout:g} s"
        try:
            self.client.get(next(iter(self.in_flight)), RETRY_INTERVAL)
        except JobTimeout as error:
            return f"{late}: {str(error).partition(': ')[2]}"
        return late

    def _end(self, deadline: float) -> None:
        """Have no more tiles computed, and no value of one stay in the result store.

        One that runs is not stopped, which would cost its worker a process: it is waited for,
        but not past `deadline`. What a worker takes in this very moment is not always known to
        run: its value then stays until it expires, as any that nobody fetched.
        """
        with suppress(*broker.AWAY, OSError, ClusterError):
            running = [job.id for job in self.in_flight if not job.ready()]
            if running:
                self.client.app.control.revoke(running)
            while self.in_flight and (left := deadline - monotonic()) > 0:
                if job := self._ended(left):
                    del self.in_flight[job]
                    job.forget()
            for job in self.in_flight:
                job.forget()


def _ignore(_: object) -> None:
    """Do nothing with a result: who waits for it reads it."""
