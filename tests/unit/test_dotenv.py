"""Make reads `.env` as Compose does, or refuses a line (tests.cluster compares them)."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local import dotenv
from tests.support.repo import ROOT
from tests.support.spellings import REFUSED, SPELLINGS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile, and a target that prints A."""
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / "local").mkdir()
    shutil.copy(ROOT / "local" / "dotenv.py", tmp_path / "local")
    (tmp_path / "print.mk").write_text("include Makefile\nprint:\n\t@printenv A\n")
    return tmp_path


def make(folder: Path, content: bytes, **variables: str) -> "subprocess.CompletedProcess[str]":
    (folder / ".env").write_bytes(content)
    return subprocess.run(
        ["make", "-s", "-f", "print.mk", "print"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "B": "9", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("text", SPELLINGS)
def test_make_exports_the_value_that_compose_has(folder: Path, text: str) -> None:
    expected = SPELLINGS[text]
    done = make(folder, text.encode())

    if expected is REFUSED:
        assert done.returncode == 2
        number = text.rstrip("\n").count("\n") + 1
        assert f" .env, line {number}: " in done.stderr or " .env, line 1: " in done.stderr
        assert len(done.stderr.splitlines()) == 1
    else:
        assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr


@pytest.mark.parametrize("number", [1, 3])
def test_the_line_is_named(number: int) -> None:
    with pytest.raises(dotenv.Wrong, match=rf"^\.env, line {number}: "):
        dotenv.read("\n" * (number - 1) + "A\nB=1\n", {})


def test_the_environment_wins_as_in_compose(folder: Path) -> None:
    assert make(folder, b"A=1", A="2").stdout == "2\n"
    assert make(folder, b"A=1", A="").stdout == "\n"


def test_text_that_is_not_utf_8_is_one_line(folder: Path) -> None:
    done = make(folder, b"A=\xff\n")

    assert done.returncode == 2
    assert " .env must be UTF-8." in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_python_that_does_not_exist_is_one_line_more(folder: Path) -> None:
    done = make(folder, b"A=1", PYTHON="no-python")

    assert done.returncode == 2
    assert " cannot read .env: set PYTHON" in done.stderr


def test_the_example_is_read_with_every_comment_taken_away() -> None:
    text = (ROOT / ".env.example").read_text()
    lines = [line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")]

    assert dotenv.read("\n".join(lines), {})["REDIS_PORT"] == "6379"
