"""The benchmark of the stack's start, run once: its output, without any times."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.repo import ROOT
from tests.support.stack import Stack, docker


def test_the_start_of_a_stack_is_measured_and_nothing_stays(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.startup", "--docker", "--rounds", "1", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last = json.loads(file.read_text())["figures"]

    assert first["name"] == "stack on Docker, first result"
    assert last["name"] == "stack on Docker, last result"
    assert 0 < first["ours"][0] < last["ours"][0]
    assert (first["unit"], first["yardstick"][0], first["bound"]) == ("ms", 5000, 1)
    assert "task-cluster-startup" not in docker("ps", "--all", "--format", "{{.Names}}")
    assert "task-cluster-startup" not in docker("volume", "ls", "--format", "{{.Name}}")
