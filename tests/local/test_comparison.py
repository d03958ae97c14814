"""The comparison with peers and its guard, run with few jobs: their output, without any times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local.server import ROOT
from tests.local.local import Local


def python(*argv: str) -> "subprocess.CompletedProcess[str]":
    """Run one of the benchmarks."""
    return subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_this_cluster_alone_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = python("bench.peers", "--quick", "--only", "ours", "--json", str(file))

    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text()) == []  # there is no other system to compare with
    runs = json.loads((tmp_path / "figures.samples.json").read_text())["runs"]
    assert [run["appendfsync"] for run in runs] == ["always", "everysec"]
    (sample,) = runs[0]["samples"]
    assert len(sample["trips"]) == len(sample["loaded"]) == 10
    for name in ("submit", "each", "submit_bulk", "bulk", "load", "memory", "calls"):
        assert sample[name] > 0, name
    for words in ("left out: celery-prefork", "other programs", "these figures mean nothing"):
        assert words in done.stdout


def test_a_cluster_that_runs_is_measured_as_it_is(local: Local) -> None:
    done = local.command("bench.peers", "--running", "--quick")

    assert done.returncode == 0, done.stderr
    for words in ("│ ours ", "the workers are not visible from here"):
        assert words in done.stdout
    assert "is not known" in done.stdout  # its workers are not ours


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--only", "sidekiq"), "'sidekiq' is not one of ours"),
        (("--json", "/nowhere/figures.json"), "cannot write '/nowhere/figures.json'"),
        (("--appendfsync", "sometimes"), "'sometimes' is not one of"),
        (("--quick", "--report"), "--quick measures too little for a --report"),
    ],
)
def test_wrong_usage_is_found_before_anything_starts(options: tuple[str, ...], error: str) -> None:
    done = python("bench.peers", *options)

    assert (done.stdout, done.returncode) == ("", 2)
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_guard_fails_below_its_ratios_and_says_which() -> None:
    done = python("bench.guard", "--rounds", "1", "--bulk", "1000", "--trip", "0", "--submit", "0")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: too slow beside stock Celery: bulk ") or ", bulk " in line
    assert "trip" not in line
    assert "bulk: " in done.stdout
    assert "at least 1000" in done.stdout
