"""The results of a comparison: a row for each system, and the figures with their bounds."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.table import Table

from bench.figures import Figure, Goal, Measured, brief
from bench.systems import OURS, SYSTEMS, System
from bench.turn import Sample

#: Bounds of the ratios of this cluster to the others.
BULK_OVER_PEERS = 5.0
BULK_OVER_CELERY = 10.0
#: By appendfsync: a disk that each job waits for twice is the same for all.
EACH_OVER_PEERS = {"always": 1.3}
EACH_OVER_PEERS_ELSE = 2.0
SUBMIT_OVER_CELERY = 2.5
TRIP_OVER_PEERS = 2.0
CPU_OVER_PREFORK = 15.0
CALLS_OVER_PEERS = 40.0
JOBS = "jobs/s"


class Row(NamedTuple):
    """The medians of a system's turns, with their spread; times in ms, CPU in ms per job."""

    system: System
    submit: Measured
    submit_bulk: Measured
    each: Measured
    bulk: Measured
    trip: Measured
    trip_p99: Measured
    loaded: Measured
    loaded_p99: Measured
    #: Rate of the load during `loaded`, in jobs a second.
    load: Measured
    worker_cpu: Measured
    caller_cpu: Measured
    server_cpu: Measured
    worker_cpu_each: Measured
    memory: Measured
    calls: Measured

    @property
    def best(self) -> tuple[str, Measured]:
        """The faster way end to end, and its rate."""
        return max((("bulk", self.bulk), ("one by one", self.each)), key=lambda way: way[1].value)


def row(system: System, samples: Sequence[Sample]) -> Row:
    """Return the row of a system from one or more samples."""

    def median(of: Callable[[Sample], float]) -> Measured:
        return Measured.median([of(sample) for sample in samples])

    def p50(of: Callable[[Sample], list[float]]) -> Measured:
        return median(lambda sample: statistics.median(of(sample)))

    return Row(
        system,
        submit=median(lambda sample: sample.submit),
        submit_bulk=median(lambda sample: sample.submit_bulk),
        each=median(lambda sample: sample.each),
        bulk=median(lambda sample: sample.bulk),
        trip=p50(lambda sample: sample.trips),
        trip_p99=Measured.p99([sample.trips for sample in samples]),
        loaded=p50(lambda sample: sample.loaded),
        loaded_p99=Measured.p99([sample.loaded for sample in samples]),
        load=median(lambda sample: sample.load),
        # Seconds for a thousand jobs are milliseconds for one.
        worker_cpu=median(lambda sample: sample.cpu_bulk.workers),
        caller_cpu=median(lambda sample: sample.cpu_bulk.caller),
        server_cpu=median(lambda sample: sample.cpu_bulk.server),
        worker_cpu_each=median(lambda sample: sample.cpu_each.workers),
        memory=median(lambda sample: sample.memory),
        calls=median(lambda sample: sample.calls),
    )


def rows(samples: Iterable[Sample]) -> list[Row]:
    """Return a row for each system that has samples, in the usual order."""
    of: dict[str, list[Sample]] = {}
    for sample in samples:
        of.setdefault(sample.system, []).append(sample)
    return [row(system, of[system.name]) for system in SYSTEMS if system.name in of]


def figures(rows: Sequence[Row], appendfsync: str) -> list[Figure]:
    """Return the figures of `rows`, without those against systems that were left out."""
    ours = next((row for row in rows if row.system is OURS), None)
    if not ours:
        return []
    peers = [row for row in rows if row is not ours]
    celery = [row for row in peers if row.system.is_stock_celery]
    return [
        *_over_peers(ours, peers, EACH_OVER_PEERS.get(appendfsync, EACH_OVER_PEERS_ELSE)),
        *_over_celery(ours, celery),
    ]


def _over_peers(ours: Row, peers: Sequence[Row], each_bound: float) -> Iterator[Figure]:
    if not peers:
        return
    best = max(peers, key=lambda row: row.best[1].value)
    way, yardstick = best.best
    which = f"the best peer's best way ({best.system.title}, {way})"
    name = f"end to end, bulk, over {which}"
    yield Figure(name, JOBS, ours.bulk, yardstick, BULK_OVER_PEERS, Goal.TIMES_AS_MUCH)
    if ours.calls.value:
        name = f"calls by map, over {which}"
        yield Figure(name, "/s", ours.calls, yardstick, CALLS_OVER_PEERS, Goal.TIMES_AS_MUCH)
    best = max(peers, key=lambda row: row.each.value)
    name = f"end to end, one by one, over the best peer ({best.system.title})"
    yield Figure(name, JOBS, ours.each, best.each, each_bound, Goal.TIMES_AS_MUCH)
    best = min(peers, key=lambda row: row.trip.value)
    name = f"round trip p50, idle, of the best peer ({best.system.title}) over ours"
    yield Figure(name, "ms", ours.trip, best.trip, TRIP_OVER_PEERS, Goal.TIMES_LESS)


def _over_celery(ours: Row, celery: Sequence[Row]) -> Iterator[Figure]:
    if not celery:
        return
    best = max(celery, key=lambda row: row.best[1].value)
    prefork = [row for row in celery if row.system.name == "celery-prefork" and row is not best]
    for row in (best, *prefork):
        way, yardstick = row.best
        which = "stock Celery's best" if row is best else "stock"
        name = f"end to end, bulk, over {which} ({row.system.title}, {way})"
        yield Figure(name, JOBS, ours.bulk, yardstick, BULK_OVER_CELERY, Goal.TIMES_AS_MUCH)
    best = max(celery, key=lambda row: row.submit.value)
    name = f"submit, one by one, over stock ({best.system.title})"
    yield Figure(name, JOBS, ours.submit, best.submit, SUBMIT_OVER_CELERY, Goal.TIMES_AS_MUCH)
    for row in celery:
        # Linux counts hundredths of a second: it is 0 for few jobs.
        if row.system.name == "celery-prefork" and ours.worker_cpu.value:
            name = f"worker CPU a job, bulk, of stock ({row.system.title}) over ours"
            yardstick = row.worker_cpu
            yield Figure(name, "ms", ours.worker_cpu, yardstick, CPU_OVER_PREFORK, Goal.TIMES_LESS)


def table(rows: Iterable[Row]) -> Table:
    """Return all systems as a table of medians."""
    shown = Table(
        "system",
        "submit/s",
        "in bulk/s",
        "end to end/s",
        "in bulk/s",
        "p50, p99 ms",
        "half loaded ms",
        "CPU ms a job: workers, caller, server",
        "idle MB",
    )
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in rows:
        shown.add_row(
            row.system.name,
            *(f"{rate.value:.0f}" for rate in (row.submit, row.submit_bulk, row.each, row.bulk)),
            f"{row.trip.value:.2f}, {row.trip_p99.value:.2f}",
            f"{row.loaded.value:.2f}, {row.loaded_p99.value:.2f}",
            ", ".join(
                f"{cpu.value:.3f}" for cpu in (row.worker_cpu, row.caller_cpu, row.server_cpu)
            ),
            brief(row.memory.value),
        )
    return shown
