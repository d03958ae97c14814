"""The development loop, on a copy of the code that the tests change: reload, and a breakpoint."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from local.server import ROOT
from tests.support.local import Local
from tests.support.repo import files
from tests.support.waiting import eventually

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


@pytest.fixture
def dev(tmp_path: Path, code: Path) -> Iterator[Local]:
    """The cluster that `make dev FAMILY=add` runs."""
    local = Local(tmp_path, "--watch", "add")
    try:
        local.wait_until_ready()
        yield local
    finally:
        local.stop()


def change(file: Path, old: str, new: str) -> str:
    """Replace a part of a file, as an editor does, by a new file; return the text before."""
    text = file.read_text()
    assert old in text
    file.with_suffix(".new").write_text(text.replace(old, new))
    file.with_suffix(".new").replace(file)
    return text


def test_a_change_restarts_the_family_and_runs_its_jobs_again(dev: Local, code: Path) -> None:
    others = dev.running("factorial") + dev.running("mat_mul")
    with dev.client() as client:
        job = client.submit("add.tasks.longtime_add", 4, 6, 100)
        eventually("the job runs", lambda: job.state == "STARTED")
        change(code / "add/tasks.py", "    time.sleep(\n", "    str(\n")

        assert job.get(timeout=60) == 10  # at once, by the new code
    assert dev.output().count("add/tasks.py changed: add restarts") == 1
    assert dev.running("factorial") + dev.running("mat_mul") == others


@pytest.mark.parametrize(
    "file", ["celeryconfig.py", "cluster/settings.py", "celery_streams/transport/eta.py"]
)
def test_the_code_of_all_families_is_watched(dev: Local, code: Path, file: str) -> None:
    path = code / file
    before = dev.running("add")
    path.write_text(path.read_text() + "# changed\n")

    eventually("another worker", lambda: dev.running("add") not in ([], before))
    assert f"{file} changed: add restarts" in dev.output()


def test_a_folder_that_comes_back_is_watched_again(dev: Local, code: Path) -> None:
    before = dev.running("add")
    (code / "add").rename(code / "away")
    shutil.copytree(code / "away", code / "add")
    eventually("another worker", lambda: dev.running("add") not in ([], before))
    (code / "add/new").mkdir()
    (code / "add/new/module.py").touch()
    eventually("the new one is seen", lambda: "add/new/module.py changed" in dev.output())
    with dev.client() as client:
        assert client.call("add.tasks.add", 4, 6) == 10


def test_a_syntax_error_is_one_line_and_the_next_change_starts_the_worker(
    dev: Local, code: Path
) -> None:
    tasks = code / "add/tasks.py"
    before = change(tasks, "def tsum(", "def tsum((")
    eventually("the worker ended", lambda: "the next change" in dev.output())
    lines = [line for line in dev.output().splitlines() if "tasks.py, line" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"add        | error: {tasks}, line ")
    assert "Traceback" not in dev.output()
    assert dev.running("add") == []

    tasks.write_text(before)
    with dev.client() as client:
        assert client.call("add.tasks.add", 4, 6) == 10


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        (["--watch", "nobody"], 2, "'nobody' is not one of 'add', "),
        (["--watch", "add", "--server-only"], 2, "--watch needs workers"),
        (["--watch", "add"], 1, "--watch needs watchfiles: `make install` installs it"),
    ],
)
def test_a_watch_that_is_impossible_is_one_line(
    tmp_path: Path, options: list[str], status: int, error: str
) -> None:
    program = (
        "import sys\n"
        "sys.modules['watchfiles'] = None\n"  # as if it were not installed
        f"sys.argv[1:] = ['start', *{options}]\n"
        "from local.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "LOCAL_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("", status)
    assert done.stderr.startswith("error: ")
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


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
