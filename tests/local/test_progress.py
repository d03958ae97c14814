"""An interrupted benchmark: its output has its progress and its samples."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.progress import Progress
from local.server import ROOT
from tests.waiting import eventually

SMALL = ("--jobs", "10", "--rounds", "500")


@pytest.mark.parametrize(
    ("module", "options", "measured", "shown", "number"),
    [
        ("peers", (*SMALL, "--calls", "0", "--only", "ours"), "jobs/s one", "│ ours", "SIGINT"),
        ("peers", (*SMALL, "--calls", "0", "--only", "ours"), "jobs/s one", "│ ours", "SIGTERM"),
        ("curve", (*SMALL, "--depth", "1000"), "2 worker(s):", "1 worker(s)", "SIGTERM"),
        ("startup", ("--repeats", "500"), "start 1:", "", "SIGINT"),
        ("data", ("--repeats", "5"), "caller's peak", "caller's peak", "SIGTERM"),
    ],
)
def test_a_stop_shows_and_keeps_what_was_measured(
    tmp_path: Path, module: str, options: tuple[str, ...], measured: str, shown: str, number: str
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{module}", *options],
            cwd=ROOT,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        eventually(
            "something is measured",
            lambda: measured in err.read_text() or process.poll() is not None,
            240,
        )
        assert process.poll() is None, err.read_text()
        os.killpg(process.pid, getattr(signal, number))
        assert process.wait(90) == 130, err.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    text = err.read_text()
    found = re.search(
        r"^incomplete: (\d+) measurement\(s\) were made, kept in (.*)$", text, re.MULTILINE
    )
    assert found, text
    kept = Path(found[2])
    entries = [json.loads(line) for line in kept.read_text().splitlines()]
    kept.unlink()
    assert len(entries) == int(found[1]) >= 1
    assert all(entry["measured"] in text for entry in entries)
    assert shown in out.read_text()


def test_an_entry_is_in_the_file_when_it_was_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Progress("test", tmp_path) as progress:
        progress.report("round 1")
        progress.keep("round 1: 7 jobs/s", rate=7)
        (kept,) = tmp_path.iterdir()
        assert json.loads(kept.read_text()) == {"measured": "round 1: 7 jobs/s", "rate": 7}
    assert [*tmp_path.iterdir()] == []
    lines = capfd.readouterr().err.splitlines()
    assert [line[9:] for line in lines] == ["round 1", "round 1: 7 jobs/s"]


def test_an_error_keeps_it_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def measure() -> None:
        with Progress("test", tmp_path) as progress:
            progress.keep("one")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        measure()
    assert len([*tmp_path.iterdir()]) == 1
    assert "incomplete: 1 measurement(s) were made" in capfd.readouterr().err


def test_without_a_folder_to_write_in_the_lines_are_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with Progress("test", tmp_path / "file") as progress:
        progress.keep("one")

    assert capfd.readouterr().err.endswith(" one\n")


def test_a_stop_before_the_first_measurement_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), Progress("test", tmp_path):
        raise KeyboardInterrupt

    assert [*tmp_path.iterdir()] == []
    assert capfd.readouterr().err == "incomplete: nothing was measured yet\n"
