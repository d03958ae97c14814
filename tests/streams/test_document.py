"""docs/streams.md, followed word for word, with only the packages that it installs."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.support.repo import ROOT, read
from tests.support.waiting import eventually

PAGE = read("docs/streams.md")
URL = "redis://:password@127.0.0.1:6379/0"
PROGRAM = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
INSTALL, WORK, ASK = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """Return an environment without this repository on any path."""
    names = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    return {name: value for name, value in os.environ.items() if name not in names}


def shell(folder: Path, commands: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run a block of commands in a folder."""
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
    """The folder of the page's program, beside a checkout."""
    above = tmp_path_factory.mktemp("page")
    folder = above / "program"
    folder.mkdir()
    checkout = above / "task-cluster"
    shutil.copytree(ROOT / "celery_streams", checkout / "celery_streams")
    shutil.copytree(ROOT / "docs", checkout / "docs")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    # Use the Python of the tests: `python3` may be another version.
    done = shell(folder, INSTALL.replace("python3 -m venv", f"{sys.executable} -m venv"), 300)
    assert done.returncode == 0, done.stderr
    text = "\n\n".join(PROGRAM)
    assert text.count(URL) == 1
    (folder / "mine.py").write_text(text.replace(URL, server_url))
    return folder


@pytest.fixture
def worker(program: Path, store: Any) -> Iterator[Path]:
    """The log of the page's worker."""
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
    found = (path.relative_to(ROOT) for path in (ROOT / "celery_streams").rglob("*.py"))
    modules = [".".join(path.with_suffix("").parts) for path in found if path.stem[:2] != "__"]
    imports = "".join(f"import {module}\n" for module in modules)
    done = shell(
        program,
        ".venv/bin/python - <<'END'\n"
        f"{imports}from mine import add, charge\n"
        "print(add.delay(1, 2).get(timeout=10))\n"
        "job = charge.delay('an order', 5)\n"
        "print(job.get(timeout=10) == job.id)\nEND\n",
    )

    assert (done.stdout, done.stderr, done.returncode) == ("3\nTrue\n", "", 0)


def test_the_table_has_every_key_that_there_is(program: Path, worker: Path, store: Any) -> None:
    assert shell(program, ASK).returncode == 0

    described = ("celery:stream:", "celery:returned:", "celery-task-meta-", "_kombu.")
    notes = ("celery:reclaimed", "celery:swept")
    keys = store.keys()
    assert keys
    assert [key for key in keys if not key.startswith((*described, *notes))] == []


def test_the_wheel_and_the_sdist_hold_the_package_alone(program: Path) -> None:
    checkout = program.parent / "task-cluster"
    built = shell(
        checkout,
        f"{program}/.venv/bin/pip install --quiet hatchling\n{program}/.venv/bin/hatchling build\n",
        300,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (checkout / "dist").glob("celery_streams-*.whl")
    (sdist,) = (checkout / "dist").glob("celery_streams-*.tar.gz")
    with ZipFile(wheel) as archive:
        tops = {name.split("/")[0].partition("-")[0] for name in archive.namelist()}
        assert {"celery_streams/py.typed", "celery_streams/lua/fetch.lua"} <= {*archive.namelist()}
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 2)[1] for name in archive.getnames()}

    assert tops == {"celery_streams"}
    assert names == {"celery_streams", "docs", "LICENSE", "PKG-INFO", "pyproject.toml"}


def test_an_app_of_celerys_own_class_takes_the_settings(program: Path, worker: Path) -> None:
    done = shell(
        program,
        ".venv/bin/python - <<'END'\n"
        "import celery, celery_streams, mine\n"
        "app = celery.Celery('other')\n"
        "app.conf.update(celery_streams.settings(mine.app.conf.broker_url))\n"
        "jobs = [app.send_task('mine.total', ([i, 6],)) for i in range(3)]\n"
        "print([job.get(timeout=10) for job in jobs], type(app.backend).__module__)\n"
        "print(app.connection().transport.driver_type, mine.app.conf.task_acks_late)\n"
        "print([type(each).__name__ for each in app.submission._templates.values()])\nEND\n",
    )

    expected = "[6, 7, 8] celery_streams.app\nredis True\n['Template']\n"
    assert done.stdout == expected, done.stderr


def test_a_chord_and_a_dead_letter_of_the_program(program: Path, worker: Path) -> None:
    done = shell(
        program,
        ".venv/bin/python - <<'END'\n"
        "from celery import chord\n"
        "from mine import add, app, total\n"
        "print(chord([add.s(i, i) for i in range(3)], total.s())().get(timeout=20))\n"
        "try: app.send_task('mine.unknown').get(timeout=20)\n"
        "except Exception as error: print(type(error).__name__)\nEND\n"
        ".venv/bin/python -m celery_streams dead list --app mine\n"
        ".venv/bin/python -m celery_streams dead drop --app mine --all celery\n",
    )

    lines = done.stdout.splitlines()
    assert lines[:2] == ["6", "NotRegistered"], done.stderr
    assert "mine.unknown" in lines[3]
    assert lines[4].startswith("dropped celery:"), done.stderr
