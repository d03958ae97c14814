"""A mistake in the table of families is one line, at a worker's start, that names file and line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celeryconfig import families
from cluster.families import BadTable, family, table
from tests.support.repo import ROOT, read

TABLE = read("celeryconfig.py")
LINE = 1 + TABLE.splitlines().index("families = table(")
FACTORIAL = LINE + 2
TASK = 1 + read("factorial/tasks.py").splitlines().index("@shared_task")
assert TABLE.splitlines()[FACTORIAL - 1].startswith("    factorial=family(")


def start(folder: Path, replaced: str, by: str, module: str = "factorial.worker") -> str:
    """Start a worker with a changed table; return what it writes before it ends."""
    assert TABLE.count(replaced) == 1
    (folder / "celeryconfig.py").write_text(TABLE.replace(replaced, by))
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize(
    ("replaced", "by", "error"),
    [
        (
            '"factorial", concurrency=2',
            '"factorial", queue="add"',
            (
                f"celeryconfig.py:{FACTORIAL}: unknown key 'queue' in the table of families; the "
                "keys are tasks, concurrency, demo"
            ),
        ),
        (
            "concurrency=2",
            "concurrency=0",
            (
                f"celeryconfig.py:{FACTORIAL}: concurrency must be a whole number from 1 to 1000, "
                "not 0"
            ),
        ),
        (
            '"factorial", concurrency=2',
            '"factorial factorial"',
            f"celeryconfig.py:{FACTORIAL}: the task factorial is named twice",
        ),
        (
            '"factorial", concurrency=2',
            '"add.tasks.add"',
            f"celeryconfig.py:{FACTORIAL}: a task is the name of a function, not 'add.tasks.add'",
        ),
        (
            '"factorial", concurrency=2',
            '"factorial fibonacci"',
            (
                f"celeryconfig.py:{FACTORIAL}: factorial/tasks.py has no task fibonacci: "
                "`make contracts` removes it"
            ),
        ),
        (
            '"factorial", concurrency=2',
            '"fibonacci"',
            (
                f"factorial/tasks.py:{TASK}: the task factorial.tasks.factorial is not in the row "
                f"of factorial (celeryconfig.py:{FACTORIAL}), so it has no route: "
                "`make contracts` adds it"
            ),
        ),
        (
            "factorial=family(",
            "fac=family(",
            f"celeryconfig.py:{LINE}: the table of families has no row factorial",
        ),
        (
            'factorial=family("factorial", concurrency=2, demo="20000 --brief")',
            'factorial="factorial"',
            f"celeryconfig.py:{LINE}: the row factorial must be family(…), not 'factorial'",
        ),
        (
            "factorial=family(",
            "add=family(",
            f"keyword argument repeated: add (celeryconfig.py, line {FACTORIAL})",
        ),
        (
            'demo="20000 --brief"',
            "demo=20_000",
            f"celeryconfig.py:{FACTORIAL}: demo must be the arguments in one string, not 20000",
        ),
    ],
)
def test_a_mistake_in_the_table_is_one_line(
    tmp_path: Path, replaced: str, by: str, error: str
) -> None:
    assert start(tmp_path, replaced, by) == f"error: {error}\n"


@pytest.mark.parametrize("tasks", ["", " ", None, ["add"]])
def test_a_row_names_its_tasks(tasks: object) -> None:
    with pytest.raises(BadTable, match=r"^test_families.py:\d+: tasks must be names separated"):
        family(tasks)  # type: ignore[arg-type]


def test_a_task_has_the_queue_of_its_family() -> None:
    rows = table(add=family("add tsum"), power=family("power"))

    assert rows.routes() == {
        "add.tasks.add": {"queue": "add"},
        "add.tasks.tsum": {"queue": "add"},
        "power.tasks.power": {"queue": "power"},
    }
    assert families["add"].concurrency == 10
