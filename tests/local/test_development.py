"""The development loop, on a copy of the code that the tests change: a breakpoint."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from local.server import ROOT
from tests.local.local import Local
from tests.repo.repo import files
from tests.waiting import eventually

PROMPT = r"\(Pdb\) $"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the project."""
    root = tmp_path / "code"
    for file in files():
        if file.is_file():
            (root / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file.relative_to(ROOT))
    return root


def change(file: Path, old: str, new: str) -> str:
    """Replace a part of a file, as an editor does, by a new file; return the text before."""
    text = file.read_text()
    assert old in text
    file.with_suffix(".new").write_text(text.replace(old, new))
    file.with_suffix(".new").replace(file)
    return text


def test_a_breakpoint_in_a_task_stops_a_solo_worker(server_only: Local, code: Path) -> None:
    change(
        code / "add/tasks.py",
        '    return arguments.number("x"',
        '    breakpoint()\n    return arguments.number("x"',
    )
    terminal, end = pty.openpty()
    # The limits that a job at a breakpoint exceeds: of its lease, its time and a silent loop.
    limits = {"JOB_LEASE": "1", "TASK_TIME_LIMIT": "2", "WORKER_HANG_TIMEOUT": "4"}
    with (
        subprocess.Popen(
            [sys.executable, "-m", "add.worker", "--pool", "solo"],
            cwd=code,
            env={**server_only.env, **limits},
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
        ) as worker,
        server_only.client() as client,
    ):
        os.close(end)
        try:
            job = client.submit("add.tasks.add", 4, 6)
            assert "-> return arguments.number" in read_until(terminal, PROMPT)
            os.write(terminal, b"import time; time.sleep(8); x + y + 100\n")
            assert "\n110" in read_until(terminal, PROMPT)
            os.write(terminal, b"c\n")
            assert job.get(timeout=30) == 10
            worker.terminate()
            assert "(Pdb)" not in read_until(terminal, "Warm shutdown")
            assert worker.wait(30) == 0
        finally:
            worker.kill()
            os.close(terminal)


def read_until(terminal: int, pattern: str) -> str:
    """Read from a terminal until its output matches a pattern."""
    shown = ""

    def read() -> bool:
        nonlocal shown
        with suppress(OSError):  # Linux says EIO when the other end is closed
            while select.select([terminal], [], [], 0)[0]:
                shown += os.read(terminal, 4096).decode()
        return bool(re.search(pattern, shown))

    eventually(pattern, read)
    return shown
