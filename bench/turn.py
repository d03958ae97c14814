"""A system's turn: its workers start, are measured, and stop before the next system's start."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import process_time
from typing import Any, NamedTuple

from bench import environments
from bench.conversation import Conversation
from bench.load import Load, probe
from bench.processes import Session, cpu_seconds, memory
from bench.servers import RunningCluster, Server
from bench.systems import WORKERS, System
from cluster.errors import ClusterError
from local.server import ROOT

#: Jobs that are run by each way before the clock starts, to connect and to import modules.
WARM_UP = 100
#: Jobs of each way at least.
MIN_JOBS = 200
#: Ratio of the load during single jobs to the system's rate one by one.
LOAD_SHARE = 0.5


class Sizes(NamedTuple):
    """The numbers of jobs of a turn."""

    #: Jobs of each way at most; a slow system does fewer, in about as many seconds.
    jobs: int
    seconds: float
    trips: int
    #: Calls in bundles, by `map`; 0 leaves them out.
    calls: int


class Cpu(NamedTuple):
    """CPU seconds of a thousand jobs, with all child processes."""

    workers: float
    caller: float
    server: float


class Sample(NamedTuple):
    """The results of a turn: rates in jobs a second, times in milliseconds."""

    system: str
    submit: float
    each: float
    submit_bulk: float
    bulk: float
    trips: list[float]
    loaded: list[float]
    load: float
    cpu_each: Cpu
    cpu_bulk: Cpu
    #: MB of an idle worker, and how they are counted: PSS or RSS.
    memory: float
    memory_kind: str
    #: Calls a second by `map`, in bundles; 0 if not measured.
    calls: float
    #: Times of the same calculation, before the turn and after it.
    probes: list[float]


def take(system: System, server: Server, sizes: Sizes, load: Load) -> Sample:
    """Return a sample of a system, which has the machine and an empty server to itself."""
    server.reset()
    before = probe()
    with ExitStack() as stack:
        workers = stack.enter_context(started(system, server))
        env = server.variables(system)
        client = stack.enter_context(Conversation(system, env, server.folder))
        other = stack.enter_context(Conversation(system, env, server.folder, "load"))
        prepare(client, workers)
        other.ask("bulk", count=WARM_UP)
        if workers:  # else their CPU time counts as that of other programs
            stack.enter_context(load.watched(lambda: _own_seconds(workers, client, other, server)))
        sample = _measure(system, server, sizes, workers, client, other)
    return sample._replace(probes=[before, probe()])


@contextmanager
def started(system: System, server: Server) -> Iterator[list[Session]]:
    """Run a system's workers, unless they already run."""
    workers: list[Session] = []
    lines = () if isinstance(server, RunningCluster) else system.workers
    with ExitStack() as stack:  # stops all of them, even if stopping one is interrupted
        for number, line in enumerate(lines):
            name = f"{system.name}.worker{number}"
            argv = environments.argv(system, line)
            env = server.variables(system)
            workers.append(Session(name, argv, env, server.folder, ROOT))
            stack.callback(workers[-1].stop)
        yield workers


def prepare(client: Conversation, workers: list[Session]) -> None:
    """Wait until every worker has run a job; raises ClusterError if one has ended instead."""
    try:
        client.ask("ready", workers=WORKERS if workers else 1)
        client.ask("each", count=WARM_UP)
        client.ask("bulk", count=WARM_UP)
    except ClusterError:
        for worker in workers:
            worker.check()
        raise


def _measure(
    system: System,
    server: Server,
    sizes: Sizes,
    workers: list[Session],
    client: Conversation,
    other: Conversation,
) -> Sample:
    idle, kind = memory(_pids(workers))
    count = _fitting(client, "each", sizes)
    with _cpu(workers, client, server, count) as cpu_each:
        each = client.ask("each", count=count)
    in_bulk = _fitting(client, "bulk", sizes)
    submit_bulk = client.ask("submit_bulk", count=in_bulk)
    with _cpu(workers, client, server, in_bulk) as cpu_bulk:
        bulk = client.ask("bulk", count=in_bulk)
    trips = client.ask("trips", count=sizes.trips)["ms"]
    rate = LOAD_SHARE * count / each["total"]
    loaded, load = _half_loaded(client, other, rate, sizes.trips)
    return Sample(
        system.name,
        submit=count / each["submit"],
        each=count / each["total"],
        submit_bulk=in_bulk / submit_bulk["submit"],
        bulk=in_bulk / bulk["total"],
        trips=trips,
        loaded=loaded,
        load=load,
        cpu_each=cpu_each[0],
        cpu_bulk=cpu_bulk[0],
        memory=idle / WORKERS,
        memory_kind=kind,
        calls=_calls(client, sizes) if system.is_ours else 0.0,
        probes=[],
    )


def _fitting(client: Conversation, way: str, sizes: Sizes) -> int:
    """Return how many jobs a system runs in `sizes.seconds`, between MIN_JOBS and `sizes.jobs`."""
    rate = WARM_UP / float(client.ask(way, count=WARM_UP)["total"])
    return max(min(sizes.jobs, int(rate * sizes.seconds)), min(MIN_JOBS, sizes.jobs))


def _half_loaded(
    client: Conversation, other: Conversation, rate: float, trips: int
) -> tuple[list[float], float]:
    """Return the times of single jobs while another client submits, and that client's rate."""
    other.send("load", rate=rate)
    times: list[float] = client.ask("trips", count=trips)["ms"]
    load = other.ask("stop")
    return times, load["jobs"] / load["seconds"]


def _calls(client: Conversation, sizes: Sizes) -> float:
    if not sizes.calls:
        return 0.0
    return sizes.calls / float(client.ask("calls", count=sizes.calls)["total"])


@contextmanager
def _cpu(
    workers: list[Session], client: Conversation, server: Server, jobs: int
) -> Iterator[list[Cpu]]:
    """Yield a list to which the CPU time of a thousand of the jobs is added at the end."""
    before = _cpu_now(workers, client, server)
    taken: list[Cpu] = []
    yield taken
    after = _cpu_now(workers, client, server)
    taken.append(Cpu(*(1000 / jobs * (b - a) for a, b in zip(before, after, strict=True))))


def _cpu_now(workers: list[Session], client: Conversation, server: Server) -> Cpu:
    return Cpu(cpu_seconds(_pids(workers)), cpu_seconds(client.pids), server.cpu_seconds())


def _own_seconds(
    workers: list[Session], client: Conversation, other: Conversation, server: Server
) -> float:
    measured = sum(_cpu_now(workers, client, server))
    return process_time() + measured + cpu_seconds(other.pids)


def _pids(workers: list[Session]) -> list[int]:
    return [pid for worker in workers for pid in worker.pids]


def as_json(sample: Sample) -> dict[str, Any]:
    """Return a sample as JSON."""
    cpu = {"cpu_each": sample.cpu_each._asdict(), "cpu_bulk": sample.cpu_bulk._asdict()}
    return {**sample._asdict(), **cpu}


def from_json(written: dict[str, Any]) -> Sample:
    """Return the sample of `as_json`."""
    cpu = {name: Cpu(**written[name]) for name in ("cpu_each", "cpu_bulk")}
    return Sample(**{**written, **cpu})
