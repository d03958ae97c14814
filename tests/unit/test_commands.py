"""Errors that a command finds before it connects: no broker runs here."""

import importlib
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from celery_streams import cli
from local.cluster import replicas
from tests.support.repo import ROOT


class Wrong(NamedTuple):
    """The output of a command that ended with an error."""

    status: Any
    printed: str
    error: str


Run = Callable[..., Wrong]


@pytest.fixture
def run(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """A function that runs a command in the folder of files, without a broker.

    It runs in this process, which is faster. No command leaves a file there.
    """

    def run_(family: str, *argv: str) -> Wrong:
        module = importlib.import_module(f"callers.{family}")
        monkeypatch.setattr(sys, "argv", [family, *argv])
        with pytest.raises(SystemExit) as end:
            cli.run(getattr(module, family))
        return Wrong(end.value.code, *capsys.readouterr())

    monkeypatch.chdir(files)
    monkeypatch.setattr(cli, "_drop_output", lambda: None)  # pytest needs it
    for module in ("callers.command", "callers.mat_mul"):
        monkeypatch.setattr(f"{module}.Client", None)
    before = sorted(files.iterdir())
    yield run_
    assert sorted(files.iterdir()) == before


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of valid and invalid operands."""
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "a.npy", np.ones((2, 3)))
    np.save(folder / "stack.npy", np.ones((5, 2, 3)))
    np.save(folder / "number.npy", np.float64(3))
    np.save(folder / "objects.npy", np.array([{}, None]))
    np.save(folder / "records.npy", np.zeros(3, [("x", "f8"), ("y", "i4")]))
    np.save(folder / "text.npy", np.array(["one", "two"]))
    np.save(folder / "dates.npy", np.array(["2026-01-01"], "datetime64[D]"))
    np.savez(folder / "archive.npz", a=np.ones(3))
    whole = (folder / "a.npy").read_bytes()
    (folder / "truncated.npy").write_bytes(whole[:-1])
    (folder / "header.npy").write_bytes(whole[:60])
    (folder / "magic.npy").write_bytes(whole[:6])
    (folder / "damaged.npy").write_bytes(whole.replace(b"(2, 3)", b"(2, x)"))
    (folder / "negative.npy").write_bytes(whole.replace(b"(2, 3), ", b"(2, -3),"))
    (folder / "version.npy").write_bytes(whole[:6] + b"\x09" + whole[7:])
    (folder / "empty.npy").touch()
    (folder / "text.csv").write_text("1,2\n3,4\n")
    (folder / "folder.npy").mkdir()
    os.mkfifo(folder / "fifo.npy")
    # A sparse file of 80 GB, which no command reads.
    huge = (folder / "huge.npy").open("wb")
    with huge:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**10, 1)}
        np.lib.format.write_array_header_1_0(huge, header)
        huge.truncate(huge.tell() + 8 * 10**10)
    row = (folder / "row.npy").open("wb")
    with row:
        header["shape"] = (1, 10**10)
        np.lib.format.write_array_header_1_0(row, header)
        row.truncate(row.tell() + 8 * 10**10)
    return folder


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ("nothing.npy", "cannot read 'nothing.npy': No such file or directory"),
        ("a.npy/b.npy", "cannot read 'a.npy/b.npy': Not a directory"),
        ("folder.npy", "'folder.npy' is a folder"),
        ("fifo.npy", "'fifo.npy' is not a regular file"),
        ("/dev/null", "'/dev/null' is not a regular file"),
        ("archive.npz", "'archive.npz' is a .npz archive"),
        ("text.csv", "'text.csv' is not a .npy file"),
        ("empty.npy", "'empty.npy' is not a .npy file"),
        ("objects.npy", "'objects.npy' holds Python objects, not numbers"),
        ("records.npy", "'records.npy' holds records, not numbers"),
        ("text.npy", "'text.npy' holds text, not numbers"),
        ("dates.npy", "'dates.npy' holds dates, not numbers"),
        ("truncated.npy", "'truncated.npy' is truncated: 175 bytes of 176"),
        ("header.npy", "'header.npy' has an unreadable header"),
        ("magic.npy", "'magic.npy' has an unreadable header"),
        ("damaged.npy", "'damaged.npy' has an unreadable header"),
        ("negative.npy", "'negative.npy' has an invalid header: shape (2, -3)"),
        ("version.npy", "'version.npy' has an unreadable header"),
        ("a.npy", "a of shape (2, 3) and b of shape (2, 3) have no product"),
        ("stack.npy", "a of shape (2, 3) and b of shape (5, 2, 3) have no product"),
        ("number.npy", "a of shape (2, 3) and b of shape () have no product"),
    ],
)
def test_a_file_that_is_not_an_operand_is_one_line(run: Run, b: str, words: str) -> None:
    done = run("mat_mul", "--a", "a.npy", "--b", b, "--out", "c.npy")

    assert (done.printed, done.status) == ("", 2)
    assert done.error.startswith("error: ")
    assert words in done.error
    assert len(done.error.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("mat_mul",), 2, "Missing argument 'M' (see --help)"),
        (("mat_mul", "--a", "a.npy"), 2, "--a and --b go together"),
        (("mat_mul", "--b", "a.npy"), 2, "--a and --b go together"),
        (("mat_mul", "2", "3", "--a", "a.npy", "--b", "a.npy"), 2, "M, N and --seed are for"),
        (("mat_mul", "--a", "a.npy", "--b", "a.npy", "--seed", "7"), 2, "M, N and --seed are for"),
        (("mat_mul", "5", "5", "--out", "nowhere/c.npy"), 2, "there is no folder '"),
        (("mat_mul", "5", "5", "--out", "folder.npy"), 2, "'folder.npy': Is a directory"),
        (("mat_mul", "5", "5", "--out", ""), 2, "'': Is a directory"),
        (("factorial", "5", "--out", "nowhere/f"), 2, "there is no folder '"),
        (("factorial", "5", "--out", "folder.npy/"), 2, "'folder.npy/': Is a directory"),
        (("mat_mul", "1000000", "5"), 2, "the product needs 8000000000000 bytes, and this"),
        (("mat_mul", "1" + "0" * 5000, "5"), 2, "needs an integer of 33223 bits bytes"),
        (("mat_mul", "1000000", "5", "--out", "/dev/null"), 2, "name a new file with --out"),
        (("mat_mul", "--a", "huge.npy", "--b", "row.npy"), 2, "name a new file with --out"),
        (("mat_mul", "5", "1" + "0" * 5000), 1, "one row of a and one column of b need an integer"),
        (("mat_mul", "--a", "row.npy", "--b", "huge.npy"), 1, "need 160000000008 bytes"),
        (("mat_mul", "--a", "stack.npy", "--b", "a.npy"), 2, "(5, 2, 3) and b of shape (2, 3)"),
        (("mat_mul", "--a", "number.npy", "--b", "a.npy", "--tiled"), 2, "have no product"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_sent(
    run: Run, argv: tuple[str, ...], status: int, words: str
) -> None:
    done = run(*argv)

    assert (done.printed, done.status) == ("", status)
    assert done.error.startswith("error: ")
    assert words in done.error
    assert len(done.error.splitlines()) == 1


@pytest.mark.parametrize("argv", [("factorial", "5"), ("mat_mul", "5", "5", "--tiled")])
def test_a_command_without_a_broker_leaves_the_old_file(
    tmp_path: Path, argv: tuple[str, ...]
) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    done = subprocess.run(
        [sys.executable, "-m", f"callers.{argv[0]}", *argv[1:], "--out", old, "--timeout", "1"],
        cwd=ROOT,
        env={**os.environ, "REDIS_PORT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("error: cannot reach the broker")
    assert list(tmp_path.iterdir()) == [old]
    assert old.read_text() == "old"


def test_only_the_caller_of_matrices_needs_numpy() -> None:
    others = {file.stem for file in (ROOT / "callers").glob("*.py")}
    others -= {"__init__", "mat_mul", "npy", "tiled"}
    program = f"import sys; sys.modules['numpy'] = None; from callers import {', '.join(others)}"

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=30)


def test_a_terminals_bar_of_bytes() -> None:
    program = (
        "from callers import progress\n"
        "with progress.transfer_progress('a task') as on_transfer:\n"
        "    for done in (1, 2, 4):\n"
        "        on_transfer(done * 1_000_000, 4_000_000)\n"
        "    on_transfer(500_000, 8_000_000)\n"
    )
    shown = _on_a_terminal(program)

    assert "waiting for a task" in shown
    assert "0.5/8.0 MB" in shown
    assert "/4.0 MB" not in shown.split("0.5/8.0 MB")[1]


def test_a_terminals_bar_of_parts() -> None:
    program = (
        "from callers import progress\n"
        "with progress.counters() as counter:\n"
        "    counter('tiles')(3, 9)\n"
    )
    assert "3/9" in _on_a_terminal(program)


def _on_a_terminal(program: str) -> str:
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdout=end,
        stderr=end,
    ):
        os.close(end)
        shown = b""
        with suppress(OSError):  # Linux says EIO when the other end is closed
            while data := os.read(terminal, 4096):
                shown += data
    os.close(terminal)
    return shown.decode()


def test_a_machine_runs_no_thousand_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADD_REPLICAS", "101")
    with pytest.raises(ValueError, match="ADD_REPLICAS must be a whole number from 1 to 100"):
        replicas()
