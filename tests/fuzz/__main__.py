"""`python -m tests.fuzz`: fuzz all that is read from outside, guided by coverage.

Ends with 1 if an input raised an error that is not documented, took too long or too much memory;
that input is in `tests/fuzz/found`.
"""

import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

import click

from tests.fuzz.seeds import CORPUS, keep
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
#: Where inputs are kept that found something.
FOUND = HERE / "found"
#: Bytes of an input; seconds that one may take; MB that a process may have.
MAX_LENGTH, MAX_SECONDS, MAX_MEGABYTES = 4096, 10, 1024
#: Files of the corpus of one target, and bytes of each.
MAX_FILES, MAX_FILE = 40, 2048

_BEGIN, _END = "<!-- make fuzz ARGS=--report writes what follows -->", "<!-- the end of it -->"


class Run(NamedTuple):
    """What a fuzzer did."""

    target: str
    executions: int
    seconds: float
    megabytes: int
    finding: str


def fuzz(target: str, runs: int, seed: int, *more: str, folder: Path | None = None) -> Run:
    """Run the fuzzer of one target; what it adds to the corpus goes to the folder."""
    FOUND.mkdir(exist_ok=True)
    began = monotonic()
    with TemporaryDirectory() as temporary:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.child", target),
                *(f"-runs={runs}", f"-seed={seed}", f"-max_len={MAX_LENGTH}"),
                *(f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={MAX_MEGABYTES}"),
                *(f"-dict={HERE / 'json.dict'}", f"-artifact_prefix={FOUND}/{target}-"),
                *("-print_final_stats=1", "-len_control=20", *more),
                str(folder or temporary),
                *(str(path) for path in CORPUS.glob("*" if target == "any" else target)),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
    seconds = monotonic() - began
    finding = "" if done.returncode == 0 else done.stderr[-6000:]
    return Run(
        target,
        _stat(done.stderr, "number_of_executed_units"),
        seconds,
        _stat(done.stderr, "peak_rss_mb"),
        finding,
    )


def _stat(output: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s+(\d+)", output)
    return int(found[1]) if found else 0


def _keep(target: str, folder: Path) -> None:
    """Add inputs to the corpus that reached new code, as far as there is room."""
    known = {each.read_bytes() for each in (CORPUS / target).iterdir()}
    found = [each.read_bytes() for each in sorted(folder.iterdir())]  # by their digests
    new = [data for data in found if len(data) <= MAX_FILE and data not in known]
    for data in new[: max(MAX_FILES - len(known), 0)]:
        keep(target, data)


def _report(runs: list[Run], seed: int) -> None:
    document = ROOT / "docs" / "reliability.md"
    before, rest = document.read_text().split(_BEGIN)
    lines = [
        (
            f"Measured: on {datetime.now(UTC):%-d %B %Y}, in one process of {platform.machine()}, "
            f"Python {platform.python_version()}, seed {seed}."
        ),
        "",
        "| target | executions | seconds | greatest memory, MB | findings |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {run.target} | {run.executions:,} | {run.seconds:.0f} | {run.megabytes} "
            f"| {int(bool(run.finding))} |"
            for run in runs
        ),
        (
            f"| all | {sum(run.executions for run in runs):,} "
            f"| {sum(run.seconds for run in runs):.0f} | {max(run.megabytes for run in runs)} "
            f"| {sum(bool(run.finding) for run in runs)} |"
        ),
    ]
    after = rest.split(_END)[1]
    document.write_text(f"{before}{_BEGIN}\n\n" + "\n".join(lines) + f"\n\n{_END}{after}")


@click.command()
@click.option("--target", "targets", multiple=True, type=click.Choice([*TARGETS]))
@click.option("--runs", default=200_000, show_default=True, help="Executions of each target.")
@click.option(
    "--seed", default=0, help="Where the fuzzers' chance begins; 0 for another each time."
)
@click.option("--keep", "keeps", is_flag=True, help="Add to the corpus what reaches more code.")
@click.option("--report", is_flag=True, help="Write the figures into docs/reliability.md.")
def main(targets: tuple[str, ...], runs: int, seed: int, keeps: bool, report: bool) -> None:
    """Fuzz what is read from messages, streams, notices and the result store."""
    seed = seed or int(datetime.now(UTC).timestamp())
    click.echo(f"seed {seed}")
    done = []
    for target in targets or TARGETS:
        with TemporaryDirectory() as folder:
            run = fuzz(target, runs, seed, folder=Path(folder))
            done.append(run)
            click.echo(
                f"{target}: {run.executions} executions in {run.seconds:.0f} s, "
                f"{run.megabytes} MB{': FOUND' if run.finding else ''}"
            )
            if run.finding:
                click.echo(run.finding)
            elif keeps:
                _keep(target, Path(folder))
    if report:
        _report(done, seed)
    sys.exit(any(run.finding for run in done))


if __name__ == "__main__":
    main()
