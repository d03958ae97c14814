"""`python -m bench.page FILE`: docs/performance.md, from a comparison's JSON and page.md."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from string import Template

import click
import msgspec

from bench.comparison import Comparison, Run
from bench.figures import figure_table, short, table
from bench.systems import OURS, TITLES, WORKERS
from celery_streams.cli import run as run_command
from local.server import ROOT

PAGE = ROOT / "docs" / "performance.md"
TEMPLATE = Path(__file__).with_suffix(".md")

#: The meaning of each setting to its users.
_PERSISTENCES = {
    "always": "this cluster's setting: Redis answers when a write is on the disk, and "
    "loses nothing when it, or the machine, is killed",
    "everysec": "Redis' own default: a killed machine loses up to a second",
    "no": "the operating system decides when to write",
}
#: Values without a figure, and whether more is better.
_WITHOUT_FIGURE = (
    ("submitting one by one", "jobs/s", "submit", max),
    ("submitting in bulk", "jobs/s", "submit_bulk", max),
    ("memory of an idle worker", "MB", "memory", min),
)
#: The tables of values: the name in the template, the corner, and the columns.
TABLES = {
    "rates": (
        "",
        {
            "submit": "submit/s",
            "submit_bulk": "in bulk/s",
            "each": "end to end/s",
            "bulk": "end to end in bulk/s",
        },
    ),
    "round_trips": (
        "ms",
        {
            "trip": "p50, idle",
            "trip_p99": "p99, idle",
            "loaded": "p50, half loaded",
            "loaded_p99": "p99, half loaded",
            "load": "the load, jobs/s",
        },
    ),
    "costs": (
        "CPU ms a job",
        {
            "worker_cpu": "workers",
            "caller_cpu": "caller",
            "server_cpu": "server",
            "memory": "memory of an idle worker, MB",
        },
    ),
}


def page(results: Comparison) -> str:
    """Return the page: figures, systems, guarantees, method and machine."""
    runs, first = results.runs, results.runs[0]
    versions = [
        (TITLES[name], ", ".join(map(" ".join, first.versions[name].items())))
        for name in first.rows
    ]
    return Template(TEMPLATE.read_text()).substitute(
        **msgspec.structs.asdict(first.sizes),
        start=first.start,
        rounds=first.rounds,
        sums=f"{first.sizes.calls:,}",
        workers=WORKERS,
        notes="\n".join(_notes(runs)),
        figures=_each(runs, _figures),
        **{name: _each(runs, partial(values, name)) for name in TABLES},
        fleet=figure_table(results.fleet) if results.fleet else "Not measured.",
        versions=table(("", "versions"), versions, "---"),
        machine="\n".join(f"- {name}: {value}" for name, value in first.machine.items()),
    )


def values(name: str, run: Run) -> str:
    """Return one of the tables of values."""
    corner, columns = TABLES[name]
    rows = [(TITLES[each], *(row[column] for column in columns)) for each, row in run.rows.items()]
    return table((corner, *columns.values()), rows)


def _notes(runs: Iterable[Run]) -> Iterator[str]:
    for run in runs:
        yield f"With `appendfsync {run.appendfsync}`, {run.note}."
        for name, why in run.failed.items():
            yield f"{name} failed and is left out: {why}."


def _each(runs: Iterable[Run], text: Callable[[Run], str]) -> str:
    """Return the text of each run, below its heading."""
    return "\n\n".join(f"### `appendfsync {run.appendfsync}`\n\n{text(run)}" for run in runs)


def _figures(run: Run) -> str:
    texts = (f"That is {_PERSISTENCES[run.appendfsync]}.", figure_table(run.figures), _ahead(run))
    return "\n\n".join(filter(None, texts))


def _ahead(run: Run) -> str:
    """Return a sentence on the values at which other systems are ahead."""
    found = []
    for what, unit, column, best_of in _WITHOUT_FIGURE:
        of = {name: row[column].value for name, row in run.rows.items()}
        best = best_of(of, key=of.__getitem__)
        if OURS.name in of and best != OURS.name:
            beside = f"{short(of[best])} {unit} beside {short(of[OURS.name])}"
            found.append(f"{TITLES[best]} at {what} ({beside})")
    return f"Ahead of this cluster: {', '.join(found)}." if found else ""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def write(file: Path) -> None:
    """Write docs/performance.md from the file that `python -m bench.compare --json` wrote."""
    PAGE.write_text(page(msgspec.json.decode(file.read_bytes(), type=Comparison)))


if __name__ == "__main__":
    run_command(write)
