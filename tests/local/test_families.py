"""A family is added by one command and its task, and removed by another."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import power
from tests.support.copies import Copy
from tests.support.families import FAMILIES
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def only_copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the project."""
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture
def copy(only_copy: Copy) -> Iterator[Copy]:
    """A copy of the project, unchanged."""
    yield only_copy
    only_copy.reset()


def test_a_new_family_passes_the_checks_and_leaves_no_trace(copy: Copy) -> None:
    said = copy.run("make", "family", "NAME=power")
    assert "power is a family now. Write its task in power/tasks.py" in said
    copy.run("make", "test_files")
    copy.run(".venv/bin/ruff", "check", "power", "callers/power.py")
    copy.run(".venv/bin/ruff", "format", "--check", "power", "callers/power.py")

    copy.write("power/tasks.py", power.TASKS)
    copy.write("power/examples.py", power.EXAMPLES)
    outdated = copy.try_to_run("make", "test_files")
    assert "out of date; run `make contracts`" in outdated.stdout + outdated.stderr
    copy.run("make", "contracts")
    copy.run("make", "test_files")
    copy.run(".venv/bin/pytest", "--quiet", "tests/unit/test_tasks.py", "-k", "power")
    assert "celery_start_power_worker" in copy.run("make", "--print-data-base", "--dry-run", "help")

    assert copy.run("make", "family_remove", "NAME=power") == "power is removed\n"
    assert copy.status() == ""
    assert not (copy.folder / "power").exists()


def test_tasks_of_other_names_are_named_by_make_contracts(copy: Copy) -> None:
    copy.run("make", "family", "NAME=power")
    copy.write("power/tasks.py", power.OTHER_TASKS)
    copy.write("power/examples.py", power.OTHER_EXAMPLES)
    before = copy.try_to_run("make", "test_files")
    assert before.stderr.startswith("error: power/tasks.py:10: the task power.tasks.raised is not ")
    copy.run("make", "contracts")
    copy.run("make", "test_files")

    assert '    power=family("raised root"),\n' in (copy.folder / "celeryconfig.py").read_text()
    row = "| [`power`](power/tasks.py) | `raised(base, exponent=…)` | `base` to the power of "
    assert row in (copy.folder / "README.md").read_text()
    shown = copy.run(".venv/bin/python", "-m", "callers.power", "--help")
    assert "BASE [exponent=EXPONENT]" in shown
    bad = copy.try_to_run(".venv/bin/python", "-m", "callers.power", "two")
    assert bad.returncode == 2
    assert bad.stderr == "error: base must be a whole number, not 'two' (see --help)\n"
    copy.run("make", "family_remove", "NAME=power")
    assert copy.status() == ""


@pytest.mark.parametrize(
    ("tasks", "error"),
    [
        (
            "import nothing_of_this_name\n",
            "power/tasks.py: No module named 'nothing_of_this_name'; ",
        ),
        ("def power(:\n", "{folder}/power/tasks.py, line 1: invalid syntax"),
        (
            "",
            "celeryconfig.py:{line}: power/tasks.py has no task power: `make contracts` removes it",
        ),
    ],
)
def test_a_mistake_in_the_tasks_is_one_line(copy: Copy, tasks: str, error: str) -> None:
    copy.run("make", "family", "NAME=power")
    copy.write("power/tasks.py", tasks)
    done = copy.try_to_run("make", "test_files")
    lines = (copy.folder / "celeryconfig.py").read_text().splitlines()
    line = lines.index('    power=family("power"),') + 1

    assert done.stderr.startswith("error: " + error.format(folder=copy.folder, line=line))
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("celery", "celery is a Python module: a family needs another name"),
        ("1x", "a family's name consists of lower-case letters, "),
        ("Power", "a family's name consists of lower-case letters, "),
        ("my-family", "a family's name consists of lower-case letters, "),
        ("a" * 31, "a family's name consists of lower-case letters, "),
        ("add", "the family add exists already"),
        ("tests", "tests exists already: a family needs another name"),
        ("submit", "callers/submit.py exists already: a family needs another name"),
        ("class", "class is a word of Python: a family needs another name"),
        ("list", "list is a word of Python: a family needs another name"),
        ("json", "json is a Python module: a family needs another name"),
        ("redis", "redis is a service in docker-compose.yml: a family needs another name"),
        ("null", "null has a meaning already: a family needs another name"),
        ("server", "server has a meaning already: a family needs another name"),
        ("arguments", "arguments has a meaning already: a family needs another name"),
    ],
)
def test_a_name_that_cannot_be_is_one_line(copy: Copy, name: str, error: str) -> None:
    done = copy.try_to_run("make", "family", f"NAME={name}")

    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith(f"error: {error}")
    assert copy.status() == ""


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("power", f"there is no family 'power'; the families are {', '.join(FAMILIES)}"),
        ("add", "add cannot be removed: documents, tests and benchmarks need it"),
    ],
)
def test_only_a_family_that_was_added_is_removed(copy: Copy, name: str, error: str) -> None:
    done = copy.try_to_run("make", "family_remove", f"NAME={name}")

    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == f"error: {error}"
    assert copy.status() == ""


def test_a_name_is_needed(copy: Copy) -> None:
    done = copy.try_to_run("make", "family")

    assert "name the new family: make family NAME=power" in done.stderr


def test_an_error_or_an_interrupt_leaves_the_files_as_they_were(copy: Copy) -> None:
    program = (
        "import os, resource, signal, develop.tree as tree\n"
        "from develop import family\n"
        "def fail(path, content):\n"
        "    if path.name != 'README.md':\n"
        "        return write(path, content)\n"
        "    tree.Path.write_bytes = write\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    raise OSError('no space')\n"
        "write, tree.Path.write_bytes = tree.Path.write_bytes, fail\n"
        "family.add('power')\n"
    )
    done = copy.try_to_run(sys.executable, "-c", program)

    assert done.returncode == -signal.SIGINT
    assert copy.status() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_changes_all_or_nothing(copy: Copy, number: signal.Signals) -> None:
    command = subprocess.Popen(
        [copy.folder / ".venv/bin/python", "-m", "develop", "family", "power"],
        cwd=copy.folder,
        env={**os.environ, "PYTHONPATH": ""},
        stderr=subprocess.DEVNULL,
    )
    began = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    eventually("it generates contracts", lambda: began.read_text() or command.poll() is not None)
    command.send_signal(number)
    assert command.wait(60) != 0
    assert copy.status() == ""


def test_of_two_commands_at_once_none_undoes_what_the_other_did(copy: Copy) -> None:
    names = ["power", "root"]
    commands = [
        subprocess.Popen(
            [copy.folder / ".venv/bin/python", "-m", "develop", "family", name],
            cwd=copy.folder,
            env={**os.environ, "PYTHONPATH": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    errors = [command.communicate(timeout=60)[1] for command in commands]
    added = [name for name, command in zip(names, commands, strict=True) if not command.returncode]

    assert added
    for name, error in zip(names, errors, strict=True):
        assert name in added or error.endswith(" has changed meanwhile: try again\n"), error
        assert (copy.folder / name).exists() == (name in added)
    copy.run("make", "test_files")
    for name in added:
        copy.run("make", "family_remove", f"NAME={name}")
    assert copy.status() == ""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (
            "celeryconfig.py",
            '    power=family("power"),\n',
            '    power=family(\n        "power",\n    ),\n',
        ),
        ("celeryconfig.py", ',\n    power=family("power"),\n', ', power=family("power"),\n'),
        ("docker-compose.yml", "  power:\n", "  power:  # mine\n"),
    ],
)
def test_edited_rows_and_blocks_are_removed(copy: Copy, file: str, old: str, new: str) -> None:
    copy.run("make", "family", "NAME=power")
    text = (copy.folder / file).read_text()
    assert text.count(old) == 1
    copy.write(file, text.replace(old, new))
    copy.run("make", "family_remove", "NAME=power")
    left = copy.status()

    # A line break that was taken out is not put in again.
    assert left in {"", " M celeryconfig.py\n"}
    assert "power" not in copy.run("git", "diff")


def test_a_block_that_cannot_be_told_from_others_is_left_to_its_author(copy: Copy) -> None:
    copy.run("make", "family", "NAME=power")
    text = (copy.folder / "docker-compose.yml").read_text()
    line = "    image: ${IMAGE_PREFIX:-task-cluster}/power\n"
    copy.write("docker-compose.yml", text.replace(line, f"  # mine\n{line}"))
    before = copy.status()
    done = copy.try_to_run("make", "family_remove", "NAME=power")

    assert done.stderr.startswith("error: docker-compose.yml: the services power and call-power ")
    assert copy.status() == before
