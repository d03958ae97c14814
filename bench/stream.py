"""What a small job takes while large results stream: add, one by one, idle and meanwhile."""

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

#: The most of the 99th percentile while results stream, over that of the idle cluster.
BOUND = 4
#: Rounds, of which each is idle first and streams then.
ROUNDS = 3
#: Calls before the first round: each process of the worker has done one by then.
WARM_UP = 50
#: Seconds between two looks at a server that is busy.
PAUSE = 0.1
#: One row in so many is checked of what streams.
ROW = 100
SEED = 7


class Streamed:
    """How many results came while add was measured, and in how many seconds."""

    def __init__(self) -> None:
        self.results = 0
        self.seconds = 0.0

    def __str__(self) -> str:
        return f"{self.results} came, {self.results / self.seconds:.2f} a second"


def measure(
    client: Client, size: int, count: int, rounds: Iterable[int]
) -> tuple[list[Figure], list[str]]:
    """Return the figure of `count` adds while arrays of size x size stream, and how many did."""
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
    """Return how many ms one add took."""
    ms, value = timed(client, "add.tasks.add", 4, 6)
    check("add", value, 10)
    return ms


def while_streaming(client: Client, size: int, count: int, streamed: Streamed) -> list[float]:
    """Return how many ms each add took; more than `count` of them, until a whole result came.

    Raises ClusterError if none did in time: nothing would be measured.
    """
    with Child(_stream, size, SEED) as child:
        child.receive()  # the first result came, the next is on its way
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
                raise ClusterError(f"no large result came within {TIMEOUT:g} s of small jobs")
        streamed.seconds += perf_counter() - begin
    return samples


def _stream(pipe: "Connection[Any, Any]", size: int, seed: int) -> None:
    """Fetch one result after the other, and send when each was begun, until told to end.

    One column by one row: a large array, and little to compute. The clock is the machine's.
    """
    expected = product(size, 1, seed)
    with Client() as client:
        while not pipe.poll():
            started = perf_counter()
            value = client.call("mat_mul.tasks.mat_mul", size, 1, seed, timeout=TIMEOUT)
            # Some rows: to compare all would keep a core from the small jobs.
            check("mat_mul", value[::ROW], expected[::ROW])
            pipe.send(started)


def wait_until_settled(client: Client) -> None:
    """Wait until Redis no longer rewrites its file, as it does after much was stored.

    Raises ClusterError if it goes on for longer than TIMEOUT.
    """
    store: Any = client.app.backend
    deadline = perf_counter() + TIMEOUT
    while perf_counter() < deadline:
        with suppress(RedisTimeout):  # it may be too busy to answer in time
            state = store.client.info("persistence")
            if not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]):
                return
        sleep(PAUSE)
    raise ClusterError(f"Redis rewrites its file for longer than {TIMEOUT:g} s")
