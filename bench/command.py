"""The options of the benchmarks' commands, and their results: printed, and written as JSON."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markdown import Markdown

from bench.figures import Figure, figure_table, missed


def number(name: str, default: int, help_: str, least: int = 1) -> Callable[..., Any]:
    """Return an option for a number of things."""
    kind = click.IntRange(min=least)
    return click.option(f"--{name}", type=kind, default=default, show_default=True, help=help_)


def rounds(default: int) -> Callable[..., Any]:
    """Return the option for the number of rounds."""
    return number("rounds", default, "Rounds of each measurement.")


def _writable(_: object, __: object, file: Path | None) -> Path | None:
    """Return the file; raises BadParameter if it cannot be written, before anything starts."""
    if file and not (file.is_file() or (not file.exists() and os.access(file.parent, os.W_OK))):
        raise click.BadParameter(f"cannot write '{file}'")
    return file


json = click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path),
    callback=_writable,
    help="Also write the results to this file.",
)
running = click.option(
    "--running", is_flag=True, help="Measure a cluster that already runs, on Docker for instance."
)
quick = click.option("--quick", is_flag=True, help="A trial whose figures mean nothing.")
#: The values of Redis' appendfsync.
PERSISTENCES = click.Choice(("always", "everysec", "no"))


class Results(msgspec.Struct):
    """Figures, and what a reader must know about them."""

    figures: list[Figure]
    notes: list[str]


def show(markdown: str) -> None:
    """Print Markdown."""
    Console(width=160).print(Markdown(markdown))


def show_figures(figures: Sequence[Figure], notes: Sequence[str], *, quick: bool = False) -> None:
    """Print figures with their notes; those of a quick trial are not compared with bounds."""
    if figures:
        show(figure_table(figures))
    for line in (*notes, "--quick: these figures mean nothing" if quick else missed(figures)):
        Console().print(line, highlight=False, soft_wrap=True)


def write(results: msgspec.Struct, file: Path | None) -> None:
    """Write results to a file, if there is one, as JSON and atomically."""
    if file:
        part = file.with_name(f".{file.name}.part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
        part.replace(file)
