"""The latency of small jobs while large results stream, beside that of an idle cluster."""

from collections.abc import Iterable
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeout

from bench.figures import Figure, Measured
from bench.programs import Conversation
from bench.servers import RunningCluster
from bench.values import SEED, check, operands
from bench.work import ELEMENT, MB, TIMEOUT
from callers.client import Client
from cluster.errors import ClusterError

#: Bound of the ratio of the p99 while results stream to that of the idle cluster.
BOUND = 4
#: Rounds; each measures first the idle cluster, then the busy one.
ROUNDS = 3
#: Calls before the first round, so that each process of the worker has run one.
WARM_UP = 50
#: Interval at which a busy server is checked, in seconds.
POLL_INTERVAL = 0.1
#: One row in this many of a streamed array is checked.
CHECKED_ROW = 100


def measure(client: Client, size: int, count: int, rounds: Iterable[int]) -> tuple[Figure, str]:
    """Return the figure of `count` adds while arrays of size x size stream, and a note on those."""
    idle, meanwhile = [], []
    results, seconds = 0, 0.0
    each = -(-count // ROUNDS)
    with RunningCluster() as cluster, cluster.client() as adder:
        adder.ask("trips", count=WARM_UP)
        for _ in rounds:
            _wait_until_settled(client)
            idle.append(adder.ask("trips", count=each))
            _receive(client, size)
            begin = perf_counter()
            samples, received = _while_streaming(client, adder, size, each)
            meanwhile.append(samples)
            results, seconds = results + received, seconds + perf_counter() - begin
    what = f"{size * size * ELEMENT / MB:g} MB results"
    name = f"p99 of add, {what} streaming"
    figure = Figure(name, "ms", Measured.p99(meanwhile), Measured.p99(idle), BOUND)
    rate = f"{results} received, {results / seconds:.2f} a second"
    return figure, f"{what} streaming meanwhile: {rate}"


def _while_streaming(
    client: Client, adder: Conversation, size: int, count: int
) -> tuple[list[float], int]:
    """Return the ms of each add: `count` of them, or more until a whole result was received.

    Also return how many results were received.
    """
    samples: list[float] = []
    received = 0
    while not received:
        adder.send("trips", count=count)
        while _receive(client, size) and not adder.has_answered():
            received += 1
        samples += adder.answer()
    return samples, received


def _receive(client: Client, size: int) -> bool:
    """Receive a large array with little to compute: a column times a row."""
    value = client.call("mat_mul.tasks.mat_mul", size, 1, SEED, timeout=TIMEOUT)
    # Only some rows: comparing all would take a core from the small jobs.
    column, row = operands(size, 1, SEED)
    check("mat_mul", value[::CHECKED_ROW], column[::CHECKED_ROW] @ row)
    return True


def _wait_until_settled(client: Client) -> None:
    """Wait until Redis does not rewrite its append-only file, as it does after large writes.

    Raises ClusterError after TIMEOUT.
    """
    store: Any = client.app.backend
    deadline = perf_counter() + TIMEOUT
    while perf_counter() < deadline:
        with suppress(RedisTimeout):  # it may be too busy to answer in time
            state = store.client.info("persistence")
            if not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]):
                return
        sleep(POLL_INTERVAL)
    raise ClusterError(f"Redis has rewritten its append-only file for more than {TIMEOUT:g} s")
