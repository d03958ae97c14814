"""A system's turn: its workers start, are measured, and stop before the next system's start."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import process_time

import msgspec

from bench.load import Load, probe
from bench.programs import Conversation, Program, cpu_seconds, memory
from bench.servers import RunningCluster
from bench.systems import WORKERS, System
from cluster.errors import ClusterError

#: Jobs that are run by each way before the clock starts, to connect and to import modules.
WARM_UP = 100
#: Jobs of each way at least.
MIN_JOBS = 200
#: Ratio of the load during single jobs to the system's rate one by one.
LOAD_SHARE = 0.5


class Sizes(msgspec.Struct):
    """The numbers of jobs of a turn."""

    #: Jobs of each way at most; a slow system does fewer, in about as many seconds.
    jobs: int
    seconds: float
    trips: int
    #: Calls in bundles, by `map`; 0 leaves them out.
    calls: int

    def fitting(self, seconds: float) -> int:
        """Return the number of jobs for a system that took `seconds` for WARM_UP of them."""
        most = min(self.jobs, int(WARM_UP * self.seconds / seconds))
        return max(most, min(MIN_JOBS, self.jobs))


class Sample(msgspec.Struct):
    """The results of a turn.

    `values` are rates in jobs a second; CPU times of a job in bulk, with all child processes, in
    ms; and `memory`, MB of an idle worker. `trips` and `loaded` are ms of single jobs, `probes`
    those of the same calculation before the turn and after it.
    """

    system: str
    values: dict[str, float]
    trips: list[float]
    loaded: list[float]
    probes: list[float]


def take(system: System, server: RunningCluster, sizes: Sizes, load: Load) -> Sample:
    """Return a sample of a system, which has the machine and an empty server to itself."""
    server.reset()
    before = probe()
    with running(system, server) as (workers, client), server.client(system, "load") as other:
        other.ask("in_bulk", count=WARM_UP)

        def cpu() -> list[float]:
            return [cpu_of(*workers), cpu_of(client), server.cpu_seconds()]

        def own_seconds() -> float:
            return process_time() + sum(cpu()) + cpu_of(other)

        with ExitStack() as stack:
            if workers:  # else their CPU time counts as that of other programs
                stack.enter_context(load.watched(own_seconds))
            idle = sum(memory(worker.processes) for worker in workers)
            count = sizes.fitting(client.ask("each", count=WARM_UP)[1])
            to_submit, total = client.ask("each", count=count)
            in_bulk = sizes.fitting(client.ask("in_bulk", count=WARM_UP))
            submitted_in_bulk = client.ask("submitted_in_bulk", count=in_bulk)
            cpu_before = cpu()
            bulk = client.ask("in_bulk", count=in_bulk)
            taken = [1000 / in_bulk * (b - a) for a, b in zip(cpu_before, cpu(), strict=True)]
            trips = client.ask("trips", count=sizes.trips)
            other.send("load", rate=LOAD_SHARE * count / total)
            loaded = client.ask("trips", count=sizes.trips)
            other.send("stop")
            values = {
                "submit": count / to_submit,
                "each": count / total,
                "submit_bulk": in_bulk / submitted_in_bulk,
                "bulk": in_bulk / bulk,
                "load": other.answer(),
                "worker_cpu": taken[0],
                "caller_cpu": taken[1],
                "server_cpu": taken[2],
                "memory": idle / WORKERS,
            }
            if system.is_ours and sizes.calls:
                values["calls"] = sizes.calls / client.ask("calls", count=sizes.calls)
    return Sample(system.name, values, trips, loaded, [before, probe()])


def cpu_of(*programs: Program) -> float:
    """Return the CPU seconds of programs."""
    return sum(cpu_seconds(program.processes) for program in programs)


@contextmanager
def running(
    system: System, server: RunningCluster, workers: int = WORKERS
) -> Iterator[tuple[list[Program], Conversation]]:
    """Run a system's workers and a client; yield them when every worker has run a job.

    Raises ClusterError if one has ended instead.
    """
    with started(system, server) as programs, server.client(system) as client:
        try:
            client.ask("ready", workers=workers if programs else 1)
            client.ask("each", count=WARM_UP)
            client.ask("in_bulk", count=WARM_UP)
        except ClusterError:
            for program in programs:
                program.check()
            raise
        yield programs, client


@contextmanager
def started(system: System, server: RunningCluster) -> Iterator[list[Program]]:
    """Run a system's workers, unless they already run."""
    with ExitStack() as stack:  # stops all of them, even if stopping one is interrupted
        yield [stack.enter_context(worker) for worker in server.workers(system)]
