"""`python -m bench.compare`: this cluster and its alternatives, in turns.

All of them use one Redis server with the same persistence, and the same number of worker processes.
Every result is fetched and checked.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from bench import command, environments, fleet, page, turn
from bench.comparison import Comparison, Run, figures, machine, rows
from bench.load import Load, drift
from bench.progress import report, rounds, stop_like_ctrl_c
from bench.servers import OwnServer, RunningCluster
from bench.systems import OURS, TITLES, System, named
from bench.turn import Sample, Sizes
from celery_streams.cli import run
from cluster.errors import ClusterError

FULL = Sizes(jobs=5000, seconds=1.2, trips=200, calls=200_000)
QUICK = Sizes(jobs=30, seconds=1, trips=10, calls=1000)
#: The settings of this cluster, and of Redis by default.
PERSISTENCES = ("always", "everysec")


@click.command()
@command.rounds(3)
@command.number("jobs", FULL.jobs, "Jobs of each way per round at most.", least=10)
@command.number("calls", FULL.calls, "Calls by map, in bundles, per round; 0: none.", least=0)
@click.option(
    "--only",
    multiple=True,
    default=tuple(TITLES),
    help=f"Systems to measure, of {', '.join(TITLES)}; repeat it, or separate them by commas.",
)
@click.option(
    "--appendfsync",
    "persistences",
    type=command.PERSISTENCES,
    multiple=True,
    default=PERSISTENCES,
    show_default=True,
    help="Redis' appendfsync, the same for all systems; several are measured one after the other.",
)
@command.json
@click.option("--report", "is_page", is_flag=True, help="Write docs/performance.md.")
@command.running
@command.quick
def compare(
    jobs: int,
    calls: int,
    only: tuple[str, ...],
    persistences: tuple[str, ...],
    file: Path | None,
    is_page: bool,
    running: bool,
    quick: bool,
    **options: int,
) -> None:
    """Compare this cluster with its peers, in turns, on one machine and one Redis.

    A missed bound is reported, but is not an error.
    """
    if quick and is_page:
        raise click.UsageError("--quick measures too little for a --report")
    if running and only != tuple(TITLES):
        raise click.UsageError("--running measures the running cluster, and excludes --only")
    try:
        systems = (OURS,) if running else named(",".join(only).split(","))
    except ClusterError as error:
        raise click.UsageError(str(error)) from None
    sizes = QUICK if quick else msgspec.structs.replace(FULL, jobs=jobs, calls=calls)
    count = 1 if quick else options["rounds"]
    stop_like_ctrl_c()
    results = Comparison([], [])
    with RunningCluster() if running else OwnServer(persistences[0]) as server:
        for persistence in persistences[:1] if running else persistences:
            server.persist(persistence)
            results.runs.append(_measure(systems, server, sizes, count, persistence))
            command.write(results, file)  # what follows takes long, and may fail
            _show(results.runs[-1], running=running, quick=quick)
        if isinstance(server, OwnServer) and OURS in systems and not quick:
            results.fleet = fleet.measure(server)
            command.write(results, file)
            command.show_figures(results.fleet, ())
    if is_page:
        page.PAGE.write_text(page.page(results))


def _measure(
    systems: Sequence[System], server: RunningCluster, sizes: Sizes, count: int, persistence: str
) -> Run:
    start = f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}"
    failed: dict[str, str] = {}
    versions = {}
    for system in systems:
        try:
            environments.make(system)
            with server.client(system) as client:
                versions[system.name] = client.ask("versions", names=system.packages)
        except ClusterError as error:
            _leave_out(system, error, failed)
    load = Load()
    samples = [*take_turns(systems, server, sizes, count, load, failed)]
    samples = [sample for sample in samples if sample.system not in failed]
    if not samples:
        raise ClusterError(f"no system could be measured: {'; '.join(failed.values())}")
    medians = rows(samples)
    return Run(
        start=start,
        appendfsync=persistence,
        sizes=sizes,
        rounds=count,
        note=f"{load.note()}; {drift((each.system, each.probes) for each in samples)}",
        failed=failed,
        versions=versions,
        machine=machine(server.version),
        rows=medians,
        figures=figures(medians, persistence),
        samples=samples,
    )


def take_turns(
    systems: Sequence[System],
    server: RunningCluster,
    sizes: Sizes,
    count: int,
    load: Load,
    failed: dict[str, str],
) -> Iterator[Sample]:
    """Yield a sample for each turn; a peer that fails is added to `failed` and skipped.

    Each round begins with another system, so that none always follows the same. Raises ClusterError
    if this cluster fails.
    """
    for number in rounds("round", count):
        first = number % len(systems)
        for system in (*systems[first:], *systems[:first]):
            if system.name not in failed:
                try:
                    sample = turn.take(system, server, sizes, load)
                except ClusterError as error:
                    _leave_out(system, error, failed)
                else:
                    values = sample.values
                    rates = f"{values['each']:.0f} jobs/s one by one, {values['bulk']:.0f} in bulk"
                    report(f"{system.title}: {rates}")
                    yield sample


def _leave_out(system: System, error: ClusterError, failed: dict[str, str]) -> None:
    """Note that a peer has failed; raises the error of this cluster."""
    if system.is_ours:
        raise error
    failed[system.name] = " ".join(str(error).split())
    report(f"{system.title} failed and is left out: {failed[system.name]}")


def _show(done: Run, *, running: bool, quick: bool) -> None:
    for name in page.TABLES:
        command.show(page.values(name, done))
    notes = [f"{name} failed and is left out: {why}" for name, why in done.failed.items()]
    if running:
        notes.append("CPU and memory are the caller's alone: the workers are not visible from here")
    else:
        notes.append(f"appendfsync {done.appendfsync}")
    command.show_figures(done.figures, [*notes, done.note], quick=quick)


if __name__ == "__main__":
    run(compare)
