"""What is derived from the families' tasks and kept in files: `make contracts`."""

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from celeryconfig import families
from cluster.app import create
from cluster.families import BadTable
from develop import contracts, readme, table
from develop.tree import ROOT

CONTRACTS, STUB = "callers/contracts.json", "callers/calls.pyi"
#: The families whose rows in the README are written by hand.
OWN = ("add", "factorial", "mat_mul")


def derive(root: Path = ROOT) -> dict[str, str]:
    """Return the text of each derived file by its path; changes nothing.

    These are the callers' contracts and the stub of typed calls, the tasks in the rows of the table
    of families, and the rows of added families in the README. Raise BadTable, whose text names file
    and line, for tasks that have no place in these.
    """
    tasks = {name: _tasks(name) for name in families}
    described = {
        f"{name}.tasks.{task}": contracts.of_task(f"{name}.tasks.{task}")
        for name in tasks
        for task in tasks[name]
    }
    config, page = ((root / name).read_text() for name in ("celeryconfig.py", "README.md"))
    for name, row in families.items():
        if {*tasks[name]} != {*row.tasks}:
            config = table.set_tasks(config, name, tasks[name])
        if name not in OWN:
            shown = [_shown(task, described[f"{name}.tasks.{task}"]) for task in tasks[name]]
            page = readme.set_rows(page, name, shown)
    return {
        CONTRACTS: json.dumps(described, indent=2, ensure_ascii=False) + "\n",
        STUB: contracts.stub(described),
        "celeryconfig.py": config,
        "README.md": page,
    }


def outdated() -> dict[str, str]:
    """Return the text of each derived file that is missing or has another one."""
    return {
        name: text
        for name, text in derive().items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != text
    }


def _tasks(family: str) -> list[str]:
    """Return the names of the tasks in a family's `tasks.py`, in the order of their definition."""
    module = f"{family}.tasks"
    import_module(module)
    with create("develop", set_as_current=False) as app:
        functions = [(inspect.unwrap(task.run), task.name) for task in app.tasks.values()]
    found = {
        function.__code__.co_firstlineno: (function.__name__, name)
        for function, name in functions
        if function.__module__ == module
    }
    for line, (function, name) in found.items():
        if name != f"{module}.{function}":
            raise BadTable(
                f"{family}/tasks.py:{line}: a task has its function's name, {module}.{function}, "
                f"not {name}"
            )
    if not found:
        raise BadTable(f"{family}/tasks.py has no task")
    return [found[line][0] for line in sorted(found)]


def _shown(task: str, described: dict[str, Any]) -> readme.Task:
    parameters = readme.parameters(described["parameters"])
    return readme.Task(task, parameters, described["summary"])
