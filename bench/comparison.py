"""The results of a comparison: a row for each system, and the figures with their bounds."""

import os
import platform
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from bench.figures import Figure, Goal, Measured
from bench.systems import OURS, SYSTEMS, TITLES
from bench.turn import Sample, Sizes

#: The values of a system by name: those of its samples, and `trip`, `trip_p99`, `loaded` and
#: `loaded_p99`, in ms.
Row = Mapping[str, Measured]

#: Bound of our rate one by one to the best peer's, by appendfsync: a disk that each job waits for
#: twice is the same for all.
EACH_OVER_PEERS = {"always": 1.3, "everysec": 2.0, "no": 2.0}
PREFORK = "celery-prefork"


class Run(msgspec.Struct):
    """What was measured with one setting of Redis, and whether it holds."""

    start: str
    appendfsync: str
    sizes: Sizes
    rounds: int
    #: The note on the machine's load and its speed.
    note: str
    #: Errors of the peers that failed and are left out, by name.
    failed: dict[str, str]
    versions: dict[str, dict[str, str]]
    machine: dict[str, str]
    rows: dict[str, Row]
    figures: list[Figure]
    samples: list[Sample]


class Comparison(msgspec.Struct):
    """All that the page is made from."""

    runs: list[Run]
    #: The figures of bench.fleet.
    fleet: list[Figure]


def row(samples: list[Sample]) -> Row:
    """Return the row of a system: medians of its turns, with their spread."""
    trips, loaded = [each.trips for each in samples], [each.loaded for each in samples]
    return {
        **{
            name: Measured.median([sample.values[name] for sample in samples])
            for name in samples[0].values
        },
        "trip": Measured.median([statistics.median(each) for each in trips]),
        "trip_p99": Measured.p99(trips),
        "loaded": Measured.median([statistics.median(each) for each in loaded]),
        "loaded_p99": Measured.p99(loaded),
    }


def rows(samples: Iterable[Sample]) -> dict[str, Row]:
    """Return a row for each system that has samples, in the usual order."""
    of: dict[str, list[Sample]] = {}
    for sample in samples:
        of.setdefault(sample.system, []).append(sample)
    return {name: row(of[name]) for name in TITLES if name in of}


def machine(server: str) -> dict[str, str]:
    """Return the machine's processor, cores, memory and system, and its server."""
    processor = None
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        processor = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "server": server,
    }


def figures(rows: Mapping[str, Row], appendfsync: str) -> list[Figure]:
    """Return the figures of `rows`, without those against systems that were left out."""
    ours = rows.get(OURS.name)
    peers = {name: row for name, row in rows.items() if name != OURS.name}
    celery = {each.name: rows[each.name] for each in SYSTEMS if each.is_stock and each.name in rows}
    return [
        *(_over_peers(ours, peers, EACH_OVER_PEERS[appendfsync]) if ours and peers else ()),
        *(_over_celery(ours, celery) if ours and celery else ()),
    ]


def _over_peers(ours: Row, peers: Mapping[str, Row], each_bound: float) -> Iterator[Figure]:
    best = max(peers, key=lambda name: _best(peers[name])[1].value)
    way, yardstick = _best(peers[best])
    which = f"the best peer's best way ({TITLES[best]}, {way})"
    yield _rate(f"end to end, bulk, over {which}", ours["bulk"], yardstick, 5.0)
    if "calls" in ours:
        name = f"calls by map, over {which}"
        yield Figure(name, "/s", ours["calls"], yardstick, 40.0, Goal.TIMES_AS_MUCH)
    best = max(peers, key=lambda name: peers[name]["each"].value)
    name = f"end to end, one by one, over the best peer ({TITLES[best]})"
    yield _rate(name, ours["each"], peers[best]["each"], each_bound)
    best = min(peers, key=lambda name: peers[name]["trip"].value)
    name = f"round trip p50, idle, of the best peer ({TITLES[best]}) over ours"
    yield Figure(name, "ms", ours["trip"], peers[best]["trip"], 2.0, Goal.TIMES_LESS)


def _over_celery(ours: Row, celery: Mapping[str, Row]) -> Iterator[Figure]:
    best = max(celery, key=lambda name: _best(celery[name])[1].value)
    for other in dict.fromkeys((best, PREFORK)):
        if other in celery:
            way, yardstick = _best(celery[other])
            which = "stock Celery's best" if other == best else "stock"
            name = f"end to end, bulk, over {which} ({TITLES[other]}, {way})"
            yield _rate(name, ours["bulk"], yardstick, 10.0)
    best = max(celery, key=lambda name: celery[name]["submit"].value)
    name = f"submit, one by one, over stock ({TITLES[best]})"
    yield _rate(name, ours["submit"], celery[best]["submit"], 2.5)
    # Linux counts hundredths of a second: it is 0 for few jobs.
    if PREFORK in celery and ours["worker_cpu"].value:
        name = f"worker CPU a job, bulk, of stock ({TITLES[PREFORK]}) over ours"
        yardstick = celery[PREFORK]["worker_cpu"]
        yield Figure(name, "ms", ours["worker_cpu"], yardstick, 15.0, Goal.TIMES_LESS)


def _rate(name: str, ours: Measured, yardstick: Measured, bound: float) -> Figure:
    return Figure(name, "jobs/s", ours, yardstick, bound, Goal.TIMES_AS_MUCH)


def _best(row: Row) -> tuple[str, Measured]:
    """Return the faster way end to end, and its rate."""
    ways = (("bulk", row["bulk"]), ("one by one", row["each"]))
    return max(ways, key=lambda way: way[1].value)
