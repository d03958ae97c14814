"""Products too large for one worker: all workers compute tiles, which are assembled here.

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
    RECHECK_INTERVAL,
    TIMEOUT,
    Client,
    check_timeout,
)
from callers.late import RETRY_INTERVAL
from cluster import arguments, options
from cluster.connections import broker
from cluster.errors import ClusterError, JobTimeout
from cluster.values import matrices
from cluster.values.matrices import Matrix, Product

#: Tiles submitted at a time: bounds the memory that Redis and this process need.
MAX_IN_FLIGHT = 4
#: A tile's operands and product take at most MAT_MUL_MAX_BYTES / LIMIT_DIVISOR.
LIMIT_DIVISOR = 4
#: How long to wait for running tiles after a failure, in seconds, to delete their results.
CLEANUP_TIMEOUT = 10.0

#: Called after each tile with the number of tiles done and the total.
OnTile = Callable[[int, int], object]


class Grid(NamedTuple):
    """A product of `rows` by `columns`, cut into tiles of equal size except the last ones."""

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
    """Return the result of the task `mat_mul` for any `m`, up to rounding; in `out` if given.

    `timeout` is in seconds, for the whole product. Raise ValueError if even one element needs more
    than MAT_MUL_MAX_BYTES, and what `client.call` raises.
    """
    grid = grid_of_random(m, n)
    seed = (
        secrets.randbits(128) if seed is None else arguments.whole_number("seed", seed, minimum=0)
    )

    def job(rows: slice, columns: slice) -> Any:
        ends = [rows.start, rows.stop], [columns.start, columns.stop]
        return client.signature("mat_mul.tasks.tile", m, n, seed, *ends)

    out = _checked_out(out, (m, m), np.dtype(float))
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
    """Return a·b for matrices of any size, up to rounding; in `out` if given.

    All three may be memory-mapped files. Raise what `mat_mul` raises.
    """
    product = matrices.product_of(a, b)
    grid = grid_of(a, b, product)

    def job(rows: slice, columns: slice) -> Any:
        return client.signature("mat_mul.tasks.multiply", a[rows], b[:, columns])

    out = _checked_out(out, product.shape, product.dtype, a, b)
    return _Assembly(client, grid, job, out, timeout, on_tile).run()


def grid_of_random(m: int, n: int) -> Grid:
    """Return the grid of the product of random A (m x n) and B (n x m)."""
    arguments.whole_number("m", m, minimum=1)
    arguments.whole_number("n", n, minimum=1)
    return _grid(m, m, 8 * n, 8 * n, 8)


def grid_of(a: Matrix, b: Matrix, product: Product) -> Grid:
    """Return the grid of the product of `a` and `b`."""
    if a.ndim != b.ndim or a.ndim != 2:  # noqa: PLR2004 - a matrix's dimensions
        raise ValueError("a and b must have two dimensions each to be multiplied in tiles")
    inner = a.shape[1]
    rows, columns = product.shape
    item = product.dtype.itemsize
    return _grid(rows, columns, inner * product.a_item, inner * product.b_item, item)


def _grid(rows: int, columns: int, row: int, column: int, element: int) -> Grid:
    """Return a grid of nearly square tiles; `row`, `column` and `element` are sizes in bytes."""
    limit = matrices.max_bytes() // LIMIT_DIVISOR
    if row + column + element > limit:
        raise ValueError(
            f"one row of a and one column of b need {arguments.brief(row + column + element)} "
            f"bytes, and a tile of the product may take {limit} (a quarter of MAT_MUL_MAX_BYTES)"
        )
    # The largest square: element·side² + (row + column)·side <= limit.
    both = row + column
    side = (isqrt(both * both + 4 * element * limit) - both) // (2 * element)
    height = min(side, _parts(rows, 2)) or 1
    width = min((limit - height * row) // (column + height * element), _parts(columns, 2)) or 1
    height = min((limit - width * column) // (row + width * element), _parts(rows, 2)) or 1
    return Grid(
        rows,
        columns,
        _parts(rows, _parts(rows, height)) or 1,
        _parts(columns, _parts(columns, width)) or 1,
    )


def _parts(whole: int, size: int) -> int:
    """Return whole / size, rounded up; 0 if `whole` is 0."""
    return -(-whole // size) if whole else 0


def _checked_out(
    out: Matrix | None, shape: tuple[int, ...], dtype: "np.dtype[Any]", *operands: Matrix
) -> Matrix:
    if out is None:
        return np.empty(shape, dtype)
    if not out.flags.writeable:
        raise ValueError("out must be writable")
    if any(np.may_share_memory(out, operand) for operand in operands):
        raise ValueError("out must not share memory with an operand: later tiles still need it")
    if out.shape != shape or not np.can_cast(dtype, out.dtype, "same_kind"):
        raise ValueError(
            f"out must have shape {shape} and hold {dtype}, not {out.shape} and {out.dtype}"
        )
    return out


class _Assembly:
    """Computes one product: the tiles in flight, and how many are done."""

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
        self.done = 0
        #: The submitted jobs, with their tiles' places.
        self.in_flight: dict[Any, tuple[slice, slice]] = {}

    def run(self) -> Matrix:
        """Submit the tiles, a few at a time, and copy each into its place."""
        broker.connect(self.client.app, min(self.timeout, CONNECT_TIMEOUT))
        waiting = self.grid.tiles()
        try:
            if self.on_tile:
                self.on_tile(0, self.grid.size)
            while self.done < self.grid.size:
                while len(self.in_flight) < MAX_IN_FLIGHT and (place := next(waiting, None)):
                    self._submit(place)
                self._put(self._next_ended(self.deadline))
        except BaseException:  # including Ctrl-C; a second one interrupts the clean-up
            self._clean_up(min(self.deadline, monotonic() + CLEANUP_TIMEOUT))
            raise
        return self.out

    def _submit(self, place: tuple[slice, slice]) -> None:
        left = max(self.deadline - monotonic(), 0)
        # If this caller dies, its tiles expire; CLOCK_SKEW because clocks differ.
        job = self.client.submit(self.job(*place).set(expires=left + options.CLOCK_SKEW))
        # A job with callbacks is pending to the backend, which then does not buffer its result.
        job.then(_ignore, on_error=_ignore, weak=True)
        self.in_flight[job] = place

    def _put(self, job: Any) -> None:
        # The job has ended; even at the deadline, allow some time to fetch its result.
        value = self.client.get(job, max(self.deadline - monotonic(), RECHECK_INTERVAL))
        self.out[self.in_flight[job]] = value
        del self.in_flight[job]
        job.forget()
        self.done += 1
        if self.on_tile:
            self.on_tile(self.done, self.grid.size)

    def _next_ended(self, deadline: float) -> Any:
        """Wait for the job of any tile to end and return it; raise JobTimeout at the deadline."""
        while True:
            left = deadline - monotonic()
            try:
                job = self._poll(left)
            except broker.UNREACHABLE_ERRORS as error:
                if left <= 0:
                    raise broker.unreachable(self.client.app, error) from None
                sleep(min(left, RETRY_INTERVAL))
                continue
            if job:
                return job
            if left <= 0:
                raise JobTimeout(self._timeout_reason())

    def _poll(self, left: float) -> Any:
        """Return a job that has ended, or None after a notice, perhaps of another job."""
        # Check the stored states each time: a broken connection may have lost the notice.
        for job in self.in_flight:
            if job.ready():
                return job
        if left > 0:
            backend: Any = self.client.app.backend
            with suppress(TimeoutError):
                backend.result_consumer.drain_events(timeout=min(left, RECHECK_INTERVAL))
        return None

    def _timeout_reason(self) -> str:
        late = f"{self.done} of {self.grid.size} tiles done within {self.timeout:g} s"
        try:
            self.client.get(next(iter(self.in_flight)), RETRY_INTERVAL)
        except JobTimeout as error:
            return f"{late}: {str(error).partition(': ')[2]}"
        return late

    def _clean_up(self, deadline: float) -> None:
        """Revoke the remaining tiles, and delete their results from the result store.

        A running tile is not killed, which would cost its worker a process: it is waited for until
        `deadline`. A job that a worker fetches at this moment may be missed; its result then stays
        until it expires.
        """
        with suppress(*broker.UNREACHABLE_ERRORS, OSError, ClusterError):
            unfinished = [job.id for job in self.in_flight if not job.ready()]
            if unfinished:
                self.client.app.control.revoke(unfinished)
            while self.in_flight and (left := deadline - monotonic()) > 0:
                if job := self._poll(left):
                    del self.in_flight[job]
                    job.forget()
            for job in self.in_flight:
                job.forget()


def _ignore(_: object) -> None:
    """Ignore a result: the waiting thread reads it."""
