"""docs/streams.md, followed word for word: with what it installs, and with nothing else."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.repo.repo import ROOT, read
from tests.waiting import eventually

PAGE = read("docs/streams.md")
URL = "redis://:password@127.0.0.1:6379/0"
PROGRAM = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
INSTALL, WORK, ASK = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """Return an environment in which nothing of this repository is on a path."""
    names = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    return {name: value for name, value in os.environ.items() if name not in names}


def shell(folder: Path, commands: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run a block of commands as a person does, in a folder."""
    return subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> Path:
    """The folder of a program that was made as the page says, beside a checkout."""
    above = tmp_path_factory.mktemp("page")
    folder = above / "program"
    folder.mkdir()
    shutil.copytree(ROOT / "streams", above / "task-cluster" / "streams")
    # The oldest Python that is promised may not be what `python3` is here.
    done = shell(folder, INSTALL.replace("python3 -m venv", f"{sys.executable} -m venv"), 300)
    assert done.returncode == 0, done.stderr
    text = "\n\n".join(PROGRAM)
    assert text.count(URL) == 1
    (folder / "mine.py").write_text(text.replace(URL, server_url))
    return folder


@pytest.fixture
def worker(program: Path, store: Any) -> Iterator[Path]:
    """The page's worker; what it logs."""
    log = program / "worker.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-e", "-c", WORK.replace(".venv/bin/celery", "exec .venv/bin/celery")],
            cwd=program,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually("the worker is ready", lambda: " ready." in log.read_text(), 60)
        yield log
    finally:
        process.terminate()
        process.wait(30)


def test_the_page_as_it_is_printed(program: Path, worker: Path) -> None:
    done = shell(program, ASK)

    assert (done.stdout, done.returncode) == ("10\n", 0)
    assert done.stderr.endswith("no dead letters\n")
    assert len(done.stderr.splitlines()) == 1
    text = worker.read_text()
    assert "mine.total" in text
    assert "mine.add" in text
    assert "mine.charge" in text


def test_the_pages_other_tasks_and_modules(program: Path, worker: Path) -> None:
    modules = [path.stem for path in (ROOT / "streams").glob("*.py") if path.stem != "__main__"]
    imports = "".join(f"import streams.{module}\n" for module in modules if module != "__init__")
    done = shell(
        program,
        "export PYTHONPATH=.\n.venv/bin/python - <<'END'\n"
        f"{imports}from mine import add, charge\n"
        "print(add.delay(1, 2).get(timeout=10))\n"
        "job = charge.delay('an order', 5)\n"
        "print(job.get(timeout=10) == job.id)\nEND\n",
    )

    assert (done.stdout, done.stderr, done.returncode) == ("3\nTrue\n", "", 0)


def test_the_table_has_every_key_that_there_is(program: Path, worker: Path, store: Any) -> None:
    assert shell(program, ASK).returncode == 0

    described = ("celery:stream:", "celery:returned:", "celery-task-meta-", "_kombu.")
    keys = store.keys()
    assert keys
    assert [key for key in keys if not key.startswith(described)] == []
