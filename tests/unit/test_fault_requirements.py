"""Missing requirements of the fault suite are one line, before its first test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import requirements
from tests.support.repo import ROOT


def test_a_bare_machine_lacks_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(requirements, "LIBRARIES", tmp_path)

    assert [*requirements.missing()] == [
        "a Docker engine that answers",
        *("root", "nsenter", "iptables", "Debian's package faketime"),
    ]


def test_the_library_is_found_on_any_architecture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(requirements, "LIBRARIES", tmp_path)
    library = tmp_path / "riscv64-linux-gnu" / "faketime" / "libfaketimeMT.so.1"
    library.parent.mkdir(parents=True)
    library.touch()

    assert requirements.faketime() == library


def test_it_is_reported_before_the_first_test(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/faults", "--stack"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("", pytest.ExitCode.USAGE_ERROR)
    (line,) = done.stderr.split("\n\n")[0].strip().splitlines()
    assert line.startswith("ERROR: the faults of the compose stack need a Docker engine that answ")
