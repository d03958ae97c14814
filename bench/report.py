"""docs/performance.md and its plots, written from a run of the comparison."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.chart import Group, bars, short
from bench.comparison import Row
from bench.curve import Curve
from bench.figures import Figure, Measured
from bench.run import Run
from bench.systems import OURS
from local.server import ROOT

FOLDER = ROOT / "docs"
NAME = "performance"

_HOW = """\
All systems use one Redis server, with the append-only file on and `appendfsync` as named \
above, and {workers} worker processes that run jobs; the job is a sum of two integers, and every \
result is stored, fetched by the caller and checked.
They take turns: a system's workers start on an empty server, and stop before those of the next \
system start, because some poll, and would disturb the others. \
{rounds} round(s), each starting with a different system. In all of them redis-py has hiredis.
The clock starts when connections are open and every process has run a job.

- **Submit**: up to {jobs} jobs, as many as take about {seconds:g} s, one call after the other; \
**in bulk**: by the library's own way for many, if it has one. For this cluster \
that is a group: `map` submits and fetches in one.
- **End to end**: from the first submit until the caller has the last result, as many jobs.
- **Round trip**: {trips} single jobs, one after the other. **Half loaded**: while a second client \
process tries to submit and fetch half as many a second as the system did end to end, one by one; \
the load that it reached is in the table, and is not always half.
- **CPU**: of all processes of the workers, of the caller and of the server, from /proc, while \
jobs were done end to end in bulk. It counts in steps of 10 ms, so the less there is, the more \
approximate is a ratio.
- **Memory**: {memory}, of all processes of the workers, by the number of workers, before they had \
run more than the warm-up.
- **Calls by map**: {calls:,} sums by one `Client.map`, which sends many in one job. In bulk, end \
to end, this cluster's jobs are single ones (`bundle=False`).

Values are medians of the rounds, with those of the lowest and of the highest round in brackets; \
a p99 is that of all rounds together.
"""

_CURVE = """\
This cluster alone, with the last setting above, {rounds} round(s). More workers: jobs a second \
end to end, in bulk, {jobs:,} of them; workers, caller and Redis share the machine's cores. Longer \
queues: jobs that were there before the two workers started, and the rate at which their results \
appeared in Redis; best is what stays flat.
"""

_FLEET = """\
This cluster alone, and stock Celery's memory, with the last setting above. Hundreds of idle \
workers are threads of one process, which do at Redis what a worker does. Sleeping jobs are \
measured on more processes until the machine's cores are full.
"""

#: The meaning of each setting to its users.
_PERSISTENCES = {
    "always": "this cluster's setting: Redis answers when a write is on the disk, and "
    "loses nothing when it, or the machine, is killed",
    "everysec": "Redis' own default: a killed machine loses up to a second",
    "no": "the operating system decides when to write",
}


def write_report(
    runs: Sequence[Run],
    curve: Curve | None,
    fleet: Sequence[Figure] = (),
    folder: Path = FOLDER,
) -> None:
    """Write the page and its plots."""
    for name, plot in _plots(runs, curve).items():
        (folder / f"{NAME}-{name}.svg").write_text(plot)
    (folder / f"{NAME}.md").write_text(page(runs, curve, fleet))


def page(runs: Sequence[Run], curve: Curve | None, fleet: Sequence[Figure] = ()) -> str:
    """Return the page: figures, systems, guarantees, method and machine."""
    first = runs[0]
    return (
        "\n".join(
            [
                "# Performance",
                "",
                f"Written by `make bench ARGS='{_arguments(first, curve)}'`, {first.start}.",
                *(line for run in runs for line in _about(run)),
                "",
                *_section("The figures", _figures(runs)),
                *_section("Jobs a second", _each(runs, _throughput, "throughput")),
                *_section("Round trips", _each(runs, _trips, "latency")),
                *_section("CPU and memory", _each(runs, _costs)),
                *(_section("Many processes, many workers", _fleet(fleet)) if fleet else ()),
                *(_section("More workers, longer queues", _curve(first, curve)) if curve else ()),
                *_section("What becomes of a job whose worker dies", _promises(first.rows)),
                *_section("How it was measured", _how(first)),
                *_section("How each was tuned", _tuned(first)),
                *_section("The machine", _machine(first)),
            ]
        )
        .replace("\n\n\n", "\n\n")
        .rstrip()
        + "\n"
    )


def _arguments(run: Run, curve: Curve | None) -> str:
    """Return the options of a run that are not the same for all."""
    sizes = run.sizes
    deep = ""
    if curve and curve.depth:
        deep = f" --depth {max(map(int, curve.depth))} --curve-rounds {curve.rounds}"
    return f"--rounds {run.rounds} --jobs {sizes.jobs} --calls {sizes.calls}{deep} --report"


def _about(run: Run) -> Iterator[str]:
    """Yield the notes on a run that precede its figures."""
    yield f"With `appendfsync {run.appendfsync}`, {run.note}."
    for name, why in run.failed.items():
        yield f"{name} failed and is left out: {why}."


def _each(
    runs: Sequence[Run], lines: Callable[[Sequence[Row]], list[str]], plot: str = ""
) -> Iterator[str]:
    """Yield, for each run, its heading, its plot and its lines."""
    for run in runs:
        yield from _heading(run)
        if plot:
            yield from (_image(f"{plot}-{run.appendfsync}"), "")
        yield from lines(run.rows)
        yield ""


def _heading(run: Run) -> Iterator[str]:
    yield f"### `appendfsync {run.appendfsync}`"
    yield ""


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _image(name: str) -> str:
    return f"![{name}]({NAME}-{name}.svg)"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    numbers = "|".join(["---", *["---:"] * (len(head) - 1)])
    return [f"| {' | '.join(head)} |", f"|{numbers}|", *(f"| {' | '.join(row)} |" for row in rows)]


def _text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [line.replace("---:", "---") for line in _table(head, rows)]


def _figures(runs: Sequence[Run]) -> Iterator[str]:
    yield (
        "Each is a ratio within one run, on one server with the same setting for all, beside "
        "the best other system. A bound is our goal; if it is missed, "
        "[decisions.md](decisions.md#what-limits-a-single-job) says why."
    )
    yield ""
    for run in runs:
        yield from _heading(run)
        yield f"That is {_PERSISTENCES[run.appendfsync]}."
        yield ""
        yield from _figure_table(run.figures)
        yield ""
        yield from _ahead(run.rows)


#: Values without a figure, and whether more is better.
_WITHOUT_FIGURE = (
    ("submitting one by one", "jobs/s", "submit", max),
    ("submitting in bulk", "jobs/s", "submit_bulk", max),
    ("memory of an idle worker", "MB", "memory", min),
)


def _ahead(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a sentence on the values at which other systems are ahead."""
    found = []
    for what, unit, field, best_of in _WITHOUT_FIGURE:
        values = {row.system: getattr(row, field).value for row in rows}
        best = best_of(values, key=lambda system: values[system])
        if OURS in values and best is not OURS:
            beside = f"{short(values[best])} {unit} beside {short(values[OURS])}"
            found.append(f"{best.title} at {what} ({beside})")
    if found:
        yield f"Ahead of this cluster: {', '.join(found)}."
        yield ""


def _figure_table(figures: Sequence[Figure]) -> list[str]:
    return _table(
        ("", "ours", "beside", "ratio", "bound", "met"),
        [
            (
                figure.name,
                _with_unit(figure.ours, figure.unit),
                _with_unit(figure.yardstick, figure.unit),
                f"**{figure.ratio:.2f}**",
                figure.asked,
                "yes" if figure.met else "**no**",
            )
            for figure in figures
        ],
    )


def _throughput(rows: Sequence[Row]) -> list[str]:
    return _table(
        ("", "submit/s", "in bulk/s", "end to end/s", "end to end in bulk/s"),
        [
            (
                row.system.title,
                *map(_spread, (row.submit, row.submit_bulk, row.each, row.bulk)),
            )
            for row in rows
        ],
    )


def _trips(rows: Sequence[Row]) -> list[str]:
    return _table(
        (
            "ms",
            "p50, idle",
            "p99, idle",
            "p50, half loaded",
            "p99, half loaded",
            "the load, jobs/s",
        ),
        [
            (
                row.system.title,
                *map(_spread, (row.trip, row.trip_p99, row.loaded, row.loaded_p99, row.load)),
            )
            for row in rows
        ],
    )


def _costs(rows: Sequence[Row]) -> list[str]:
    return _table(
        ("CPU ms a job", "workers", "caller", "server", "memory of an idle worker, MB"),
        [
            (
                row.system.title,
                *map(_spread, (row.worker_cpu, row.caller_cpu, row.server_cpu, row.memory)),
            )
            for row in rows
        ],
    )


def _fleet(figures: Sequence[Figure]) -> list[str]:
    return [_FLEET, *_figure_table(figures)]


def _curve(run: Run, curve: Curve) -> list[str]:
    return [
        _CURVE.format(jobs=run.sizes.jobs, rounds=curve.rounds),
        _image("workers"),
        "",
        _image("depth"),
        "",
        *_table(("workers", "jobs/s"), _rates(curve.workers)),
        "",
        *_table(("jobs in the queue", "jobs/s"), _rates(curve.depth)),
    ]


def _rates(samples: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, str]]:
    for count, rates in samples.items():
        yield f"{int(count):,}", _spread(Measured.median(rates))


def _promises(rows: Sequence[Row]) -> list[str]:
    lines = _text_table(
        ("", "according to its documentation or its source"),
        [(row.system.title, row.system.guarantee) for row in rows],
    )
    return [*lines, "", "Ours was measured; the guarantees of the peers were not tested here."]


def _how(run: Run) -> list[str]:
    kinds = {sample.memory_kind for sample in run.samples}
    text = _HOW.format(
        workers=2,
        rounds=run.rounds,
        jobs=run.sizes.jobs,
        seconds=run.sizes.seconds,
        trips=run.sizes.trips,
        memory=" or ".join(sorted(kinds)),
        calls=run.sizes.calls,
    )
    return text.rstrip().split("\n")


def _tuned(run: Run) -> list[str]:
    return _text_table(
        ("", "tuned", "versions"),
        [
            (
                row.system.title,
                row.system.tuned,
                ", ".join(f"{n} {v}" for n, v in run.versions[row.system.name].items()),
            )
            for row in run.rows
        ],
    )


def _machine(run: Run) -> Iterator[str]:
    yield from (f"- {name}: {value}" for name, value in run.machine.items())
    yield f"- server: {run.server}"


def _spread(measured: Measured) -> str:
    value = short(measured.value)
    if measured.least == measured.greatest:
        return value
    return f"{value} ({short(measured.least)} … {short(measured.greatest)})"


def _with_unit(measured: Measured, unit: str) -> str:
    return f"{short(measured.value)} {unit}"


def _plots(runs: Sequence[Run], curve: Curve | None) -> dict[str, str]:
    plots = {}
    for run in runs:
        plots[f"throughput-{run.appendfsync}"] = _bars(
            run,
            "End to end, results fetched",
            "jobs/s",
            ("one by one", "in bulk"),
            lambda row: (row.each.value, row.bulk.value),
        )
        plots[f"latency-{run.appendfsync}"] = _bars(
            run,
            "Round trip of a single job, p50",
            "ms",
            ("idle", "half loaded"),
            lambda row: (row.trip.value, row.loaded.value),
        )
    if curve:
        plots["workers"] = _one_series("By the number of workers", curve.workers)
        plots["depth"] = _one_series("By the jobs in the queue", curve.depth)
    return plots


def _bars(
    run: Run,
    title: str,
    unit: str,
    ways: tuple[str, str],
    values: Callable[[Row], tuple[float, float]],
) -> str:
    groups = [Group(row.system.title, values(row), row.system.is_ours) for row in run.rows]
    return bars(f"{title}, appendfsync {run.appendfsync}", unit, ways, groups)


def _one_series(title: str, samples: Mapping[str, Sequence[float]]) -> str:
    return bars(
        title,
        "jobs/s",
        ("jobs/s",),
        [
            Group(f"{int(count):,}", (Measured.median(rates).value,))
            for count, rates in samples.items()
        ],
    )
