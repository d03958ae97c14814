"""`python -m bench.peers`: this cluster and its alternatives, in turns.

All of them use one Redis server with the same persistence, and the same number of worker processes.
Every result is fetched and checked.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import comparison, curve, environments, fleet, turn
from bench.curve import Curve
from bench.figures import Figure, check_writable, missed, table, write, write_json
from bench.load import Load
from bench.progress import Progress as Record
from bench.report import write_report
from bench.run import Run, machine, now, packages
from bench.servers import OwnServer, RunningCluster, Server
from bench.systems import NAMES, OURS, SYSTEMS, System, named
from bench.turn import Sample, Sizes
from callers.command import run
from cluster.errors import ClusterError

FULL = Sizes(jobs=5000, seconds=1.2, trips=200, calls=200_000)
QUICK = Sizes(jobs=30, seconds=1, trips=10, calls=1000)
ROUNDS, CURVE_ROUNDS = 3, 2
#: The settings of this cluster, and of Redis by default.
PERSISTENCES = ("always", "everysec")


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(min=10),
    default=FULL.jobs,
    show_default=True,
    help="Jobs of each way per round at most.",
)
@click.option(
    "--calls",
    type=click.IntRange(min=0),
    default=FULL.calls,
    show_default=True,
    help="Calls by map, in bundles, per round; 0 for none.",
)
@click.option(
    "--only",
    multiple=True,
    default=NAMES,
    help=f"Systems to measure, of {', '.join(NAMES)}; repeat it, or separate them by commas.",
)
@click.option(
    "--appendfsync",
    "persistences",
    type=click.Choice(("always", "everysec", "no")),
    multiple=True,
    default=PERSISTENCES,
    show_default=True,
    help="Redis' appendfsync, the same for all systems; several are measured one after the other.",
)
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the figures to this file, and the samples to NAME.samples.json beside it.",
)
@click.option("--report", is_flag=True, help="Write docs/performance.md and its plots.")
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=0,
    help="Also measure the curve (bench.curve), with at most this many jobs queued; 0 for none.",
    show_default=True,
)
@click.option(
    "--curve-rounds",
    type=click.IntRange(min=1),
    default=CURVE_ROUNDS,
    show_default=True,
    help="Rounds of the curve; a million jobs take three minutes per round.",
)
@click.option(
    "--running",
    is_flag=True,
    help="Measure a cluster that already runs, on Docker for instance, and no peer.",
)
@click.option("--quick", is_flag=True, help="Few jobs: a trial whose figures mean nothing.")
def peers(
    rounds: int,
    jobs: int,
    calls: int,
    only: tuple[str, ...],
    persistences: tuple[str, ...],
    file: Path | None,
    report: bool,
    depth: int,
    curve_rounds: int,
    running: bool,
    quick: bool,
) -> None:
    """Compare this cluster with its peers, in turns, on one machine and one Redis.

    A missed bound is reported, but is not an error. If it is interrupted, it prints the samples
    so far, says where they are kept, and exits with an error.
    """
    if quick and report:
        raise click.UsageError("--quick measures too little for a --report")
    if running and only != NAMES:
        raise click.UsageError("--running measures the running cluster, and excludes --only")
    systems = (OURS,) if running else _chosen(only)
    _check_writable(file)
    sizes = QUICK if quick else FULL._replace(jobs=jobs, calls=calls)
    runs: list[Run] = []
    with (
        Record("peers") as record,
        RunningCluster() if running else OwnServer(persistences[0]) as server,
    ):
        try:
            for persistence in persistences[:1] if running else persistences:
                done = _measure(systems, server, sizes, 1 if quick else rounds, persistence, record)
                runs.append(done)
                _write(file, runs, None)  # what follows takes long, and may fail
            measured: list[Figure] = []
            curved = None
            if isinstance(server, OwnServer) and OURS in systems:
                measured = [] if quick else fleet.measure(server, record)
                _write(file, runs, None, measured)
                curved = _curved(server, curve_rounds, sizes.jobs, depth, record)
        except BaseException:
            _print(runs, None, running=running, quick=quick)
            raise
    _print(runs, curved, running=running, quick=quick)
    _print_figures(measured)
    _write(file, runs, curved, measured)
    if report:
        write_report(runs, curved, measured)


def _chosen(only: tuple[str, ...]) -> tuple[System, ...]:
    try:
        return named(",".join(only))
    except ClusterError as error:
        raise click.UsageError(str(error)) from None


def _check_writable(file: Path | None) -> None:
    try:
        for target in (file, samples_file(file)) if file else ():
            check_writable(target)
    except OSError as error:
        raise click.UsageError(f"cannot write {str(file)!r}: {error.strerror}") from None


def _curved(server: OwnServer, rounds: int, jobs: int, depth: int, record: Record) -> Curve | None:
    return curve.measure(server, rounds, jobs, depth, record) if depth else None


def _print_figures(figures: Sequence[Figure]) -> None:
    if figures:
        console = Console(width=160)
        console.print(table(figures))
        console.print(missed(figures), highlight=False, soft_wrap=True)


def _write(
    file: Path | None, runs: list[Run], curved: Curve | None, measured: Sequence[Figure] = ()
) -> None:
    """Write the figures to `file`, if there is one, and the samples beside it."""
    if file:
        write([*(figure for run in runs for figure in run.named_figures), *measured], file)
        curve_samples = {"curve": curved._asdict()} if curved else {}
        written = {"runs": [run.as_json() for run in runs], **curve_samples}
        write_json(written, samples_file(file))


def samples_file(file: Path) -> Path:
    """Return the file of the samples that belong to a file of figures."""
    return file.with_suffix(".samples.json")


def _measure(
    systems: tuple[System, ...],
    server: Server,
    sizes: Sizes,
    rounds: int,
    persistence: str,
    record: Record,
) -> Run:
    server.persist(persistence)
    failed: dict[str, str] = {}
    for system in systems:
        record.report(f"preparing {system.title}")
        try:
            environments.make(system)
        except ClusterError as error:
            failed[system.name] = str(error)
            record.report(f"{system.title} is left out: {error}")
    systems = tuple(system for system in systems if system.name not in failed)
    load = Load()
    start = now()
    samples: list[Sample] = []
    try:
        for sample in _samples(systems, server, sizes, rounds, load, failed, record):
            samples.append(sample)
            rates = f"{sample.each:.0f} jobs/s one by one, {sample.bulk:.0f} in bulk"
            text = f"appendfsync {persistence}, {sample.system}: {rates}"
            record.keep(text, appendfsync=persistence, sample=turn.as_json(sample))
    except BaseException:
        if samples:
            console = Console(width=160)
            console.print(f"appendfsync {persistence}, incomplete", highlight=False)
            console.print(comparison.table(comparison.rows(samples)))
        raise
    return Run(
        start=start,
        samples=[sample for sample in samples if sample.system not in failed],
        sizes=sizes,
        rounds=rounds,
        appendfsync=persistence,
        server=server.version,
        machine=machine(),
        versions={system.name: packages(system, server) for system in systems},
        others=load.share,
        failed=failed,
    )


def _samples(
    systems: tuple[System, ...],
    server: Server,
    sizes: Sizes,
    rounds: int,
    load: Load,
    failed: dict[str, str],
    record: Record,
) -> Iterator[Sample]:
    """Yield a sample for each turn; a peer that fails is added to `failed` and skipped.

    Raises ClusterError if this cluster fails.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    terminal = Console(stderr=True)
    # Drawn only between turns: a refresh thread would disturb the measurement.
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
        auto_refresh=False,
    ) as bars:
        bar = bars.add_task("", total=rounds * len(systems))
        for number, system in _turns(systems, rounds):
            record.report(f"round {number + 1} of {rounds}: {system.title}")
            bars.update(bar, description=f"round {number + 1}: {system.title}", refresh=True)
            if system.name not in failed:
                try:
                    yield turn.take(system, server, sizes, load)
                except ClusterError as error:
                    if system.is_ours:
                        raise
                    failed[system.name] = " ".join(str(error).split())
                    record.report(f"{system.title} failed and is left out: {failed[system.name]}")
            bars.update(bar, advance=1, refresh=True)


def _turns(systems: tuple[System, ...], rounds: int) -> Iterator[tuple[int, System]]:
    """Yield the systems of each round, rotated, so that none always follows the same."""
    for number in range(rounds):
        first = number % len(systems)
        for system in (*systems[first:], *systems[:first]):
            yield number, system


def _print(runs: list[Run], curved: Curve | None, *, running: bool, quick: bool) -> None:
    console = Console(width=160)
    for done in runs:
        if not running:
            console.print(f"appendfsync {done.appendfsync}", highlight=False)
        console.print(comparison.table(done.rows))
        if done.figures:
            console.print(table(done.figures))
        for line in _notes(done, running=running, quick=quick):
            console.print(line, highlight=False, soft_wrap=True)
    if curved:
        console.print(curve.table(curved))


def _notes(done: Run, *, running: bool, quick: bool) -> Iterator[str]:
    left_out = [system.name for system in SYSTEMS if system.name not in done.versions]
    if left_out:
        yield f"left out: {', '.join(left_out)}"
    for name, why in done.failed.items():
        yield f"{name} failed and is left out: {why}"
    if running:
        yield "CPU and memory are the caller's alone: the workers are not visible from here"
    yield done.note
    yield "--quick: these figures mean nothing" if quick else missed(done.figures)


if __name__ == "__main__":
    run(peers)
