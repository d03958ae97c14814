"""The benchmarks, run with small work: their output, without any times."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.server import ROOT
from tests.support.families import FAMILIES
from tests.support.local import Local
from tests.support.waiting import eventually

#: The figures of `bench.data --quick`, with their bounds.
FIGURES = {
    "factorial(2000), against + 3 ms": ("ms", 1.5),
    "factorial(20000)": ("ms", 1.3),
    "mat_mul(50, 50)": ("ms", 1.6),
    "mat_mul(200, 200)": ("ms", 1.35),
    "multiply, 100 x 100 given": ("ms", 6),
    "worker's peak, mat_mul(200, 200)": ("MB", 1.3),
    "caller's peak, mat_mul(200, 200)": ("MB", 1.3),
    "p99 of add, 0.32 MB results streaming": ("ms", 4),
}


def bench(module: str, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run one of the benchmarks."""
    return subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *options],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def figures(file: Path) -> list[dict[str, Any]]:
    """Return the figures that a benchmark has written, each with its ratio."""
    found: list[dict[str, Any]] = json.loads(file.read_text())["figures"]
    for each in found:
        assert each["ours"][0] >= 0
        assert each["ratio"] == pytest.approx(each["ours"][0] / each["yardstick"][0])
        assert each["met"] is (each["ratio"] <= each["bound"])
    return found


def test_large_results_are_measured_on_a_cluster_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench("data", "--quick", "--json", str(file), OPENBLAS_CORETYPE="nonsense")

    assert done.returncode == 0, done.stderr
    assert {each["name"]: (each["unit"], each["bound"]) for each in figures(file)} == FIGURES
    for words in (*FIGURES, "0.32 MB results streaming meanwhile", "a second", "other programs"):
        assert words in done.stdout
    assert "--quick: these figures mean nothing" in done.stdout


def test_the_start_of_each_familys_worker_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench("startup", "--rounds", "1", "--json", str(file))

    assert done.returncode == 0, done.stderr
    assert [each["name"] for each in figures(file)] == [f"worker {family}" for family in FAMILIES]
    assert {each["yardstick"][0] for each in figures(file)} == {500}
    assert "of the cores before the first start" in done.stdout


def test_this_cluster_alone_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = bench("compare", "--quick", "--only", "ours", "--json", str(file))

    assert done.returncode == 0, done.stderr
    runs = json.loads(file.read_text())["runs"]
    assert [run["appendfsync"] for run in runs] == ["always", "everysec"]
    assert [run["figures"] for run in runs] == [[], []]  # there is no other system to compare with
    (sample,) = runs[0]["samples"]
    assert len(sample["trips"]) == len(sample["loaded"]) == 10
    measured = {"submit", "each", "submit_bulk", "bulk", "load", "memory", "calls"}
    assert measured <= {name for name, value in sample["values"].items() if value > 0}
    for words in ("other programs", "a fixed calculation", "these figures mean nothing"):
        assert words in done.stdout


def test_a_cluster_that_runs_is_measured_as_it_is(local: Local) -> None:
    done = local.command("bench.compare", "--running", "--quick")

    assert done.returncode == 0, done.stderr
    for words in ("this cluster", "the workers are not visible from here"):
        assert words in done.stdout
    assert "is not known" in done.stdout  # its workers are not ours


def test_the_guard_fails_below_its_ratios_and_says_which() -> None:
    done = bench("guard", "--rounds", "1", "--bulk", "1000", "--trip", "0", "--submit", "0")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: too slow beside stock Celery: bulk ") or ", bulk " in line
    assert "trip" not in line
    assert "at least 1000" in done.stdout


@pytest.mark.parametrize(
    ("module", "options", "error"),
    [
        ("startup", ("--json", "/nowhere/figures.json"), "cannot write '/nowhere/figures.json'"),
        ("compare", ("--only", "sidekiq"), "'sidekiq' is not one of ours"),
        ("compare", ("--quick", "--report"), "--quick measures too little for a --report"),
    ],
)
def test_wrong_usage_is_found_before_anything_starts(
    module: str, options: tuple[str, ...], error: str
) -> None:
    done = bench(module, *options)

    assert (done.stdout, done.returncode) == ("", 2)
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "options", "measured", "number"),
    [
        ("compare", ("--only", "ours", "--jobs", "10"), "jobs/s one by one", signal.SIGINT),
        ("data", (), "caller's peak", signal.SIGTERM),
    ],
)
def test_a_stop_ends_it_and_its_output_has_what_was_measured(
    tmp_path: Path, module: str, options: tuple[str, ...], measured: str, number: int
) -> None:
    output = tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{module}", *options],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:

        def is_over() -> bool:
            return measured in output.read_text() or process.poll() is not None

        eventually("something is measured", is_over, 240)
        assert process.poll() is None, output.read_text()
        os.killpg(process.pid, number)
        assert process.wait(90) == 130, output.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
