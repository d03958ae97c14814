"""The benchmark of starts, run once each: its output, without any times."""

import json
import subprocess
import sys
from pathlib import Path

from local.server import ROOT
from tests.families import FAMILIES


def test_the_start_of_each_familys_worker_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.startup", "--repeats", "1", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    figures = json.loads(file.read_text())

    assert done.returncode == 0, done.stderr
    assert [each["name"] for each in figures] == [f"worker {family}" for family in FAMILIES]
    for each in figures:
        assert (each["unit"], each["yardstick"], each["bound"]) == ("ms", 500, 1)
        assert each["ours"] > 0
        assert each["met"] is (each["ours"] <= 500)
        assert each["name"] in done.stdout
    assert "of the cores before the first start" in done.stdout  # or that it is not known


def test_a_file_that_cannot_be_written_is_found_before_anything_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.startup", "--json", "/nowhere/figures.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("error: cannot write '/nowhere/figures.json'")
