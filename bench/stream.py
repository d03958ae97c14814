"""The latency of small jobs while large results stream, beside that of an idle cluster."""

from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from time import perf_counter, sleep
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeout

from bench.calls import TIMEOUT, timed
from bench.child import Child
from bench.figures import Figure, Measured
from bench.memory import ELEMENT, MB
from bench.values import check, product
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
SEED = 7


class Streamed:
    """The number of results that were received while add was measured, and the seconds."""

    def __init__(self) -> None:
        self.results = 0
        self.seconds = 0.0

    def __str__(self) -> str:
        return f"{self.results} received, {self.results / self.seconds:.2f} a second"


def measure(
    client: Client, size: int, count: int, rounds: Iterable[int]
) -> tuple[list[Figure], list[str]]:
    """Return the figure of `count` adds while arrays of size x size stream, and a note on those."""
    for _ in range(WARM_UP):
        add(client)
    idle, meanwhile = [], []
    streamed = Streamed()
    each = -(-count // ROUNDS)
    for _ in rounds:
        wait_until_settled(client)
        idle.append([add(client) for _ in range(each)])
        meanwhile.append(while_streaming(client, size, each, streamed))
    what = f"{size * size * ELEMENT / MB:g} MB results"
    name = f"p99 of add, {what} streaming"
    figure = Figure(name, "ms", Measured.p99(meanwhile), Measured.p99(idle), BOUND)
    return [figure], [f"{what} streaming meanwhile: {streamed}"]


def add(client: Client) -> float:
    """Return the ms of one add."""
    ms, value = timed(client, "add.tasks.add", 4, 6)
    check("add", value, 10)
    return ms


def while_streaming(client: Client, size: int, count: int, streamed: Streamed) -> list[float]:
    """Return the ms of each add: `count` of them, or more until a whole result was received.

    Raises ClusterError if none was received in time: nothing would be measured.
    """
    with Child(_stream, size, SEED) as child:
        child.receive()  # the first result was received, and the next is under way
        begin = perf_counter()
        samples: list[float] = []
        whole = 0
        while len(samples) < count or not whole:
            samples.append(add(client))
            while child.has_sent():
                started = child.receive()
                streamed.results += 1
                whole += started >= begin
            if not whole and perf_counter() > begin + TIMEOUT:
                raise ClusterError(f"no large result within {TIMEOUT:g} s of small jobs")
        streamed.seconds += perf_counter() - begin
    return samples


def _stream(pipe: "Connection[Any, Any]", size: int, seed: int) -> None:
    """Fetch results one after the other and send when each began, until there is a message.

    A column times a row is a large array with little to compute. Processes share the clock.
    """
    expected = product(size, 1, seed)
    with Client() as client:
        while not pipe.poll():
            started = perf_counter()
            value = client.call("mat_mul.tasks.mat_mul", size, 1, seed, timeout=TIMEOUT)
            # Only some rows: comparing all would take a core from the small jobs.
            check("mat_mul", value[::CHECKED_ROW], expected[::CHECKED_ROW])
            pipe.send(started)


def wait_until_settled(client: Client) -> None:
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
