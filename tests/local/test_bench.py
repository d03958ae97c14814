"""The benchmark of large results, run with small ones: its output, without any times."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.server import ROOT

KEYS = {"name", "unit", "ours", "yardstick", "ratio", "bound", "met"}
#: The figures of `--quick`, with their bounds.
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


def bench(*options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run it on a new cluster."""
    return subprocess.run(
        [sys.executable, "-m", "bench.data", *options],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_cluster_of_its_own_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench("--quick", "--json", str(file), OPENBLAS_CORETYPE="nonsense")
    figures = json.loads(file.read_text())

    assert done.returncode == 0, done.stderr
    assert {each["name"]: (each["unit"], each["bound"]) for each in figures} == FIGURES
    for each in figures:
        assert set(each) == KEYS
        assert each["ours"] >= 0
        assert each["yardstick"] > 0
        assert each["ratio"] == pytest.approx(each["ours"] / each["yardstick"])
        assert each["met"] is (each["ratio"] <= each["bound"])
        assert each["name"].split("(")[0].split(",")[0] in done.stdout
    for words in ("yardstick", "ratio", "…", "0.32 MB results streaming meanwhile", "a second"):
        assert words in done.stdout
    assert "other programs" in done.stdout
    assert "--quick: these figures mean nothing" in done.stdout


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--repeats", "4"), "4 is not in the range x>=5"),
        (("--adds", "many"), "'many' is not a valid integer range"),
        (("--json", "/nowhere/figures.json"), "cannot write '/nowhere/figures.json'"),
        (("--json", "/dev/full"), "'/dev/full' is not a file"),
    ],
)
def test_wrong_usage_is_found_before_anything_starts(options: tuple[str, ...], error: str) -> None:
    done = bench(*options)

    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("error: ")
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_cluster_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench("--running", "--json", str(file), REDIS_PORT="1")

    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("error: cannot reach the broker at redis://")
    assert len(done.stderr.splitlines()) == 1
    assert not file.exists()
