"""The table of families in `celeryconfig.py`, where the facts of a family stand once."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from cluster.arguments import brief
from cluster.settings import MAX_PROCESSES

#: What a row of the table may say.
KEYS = ("tasks", "concurrency", "demo")


class BadTable(ValueError):
    """Something in the table, or in a family's tasks, that cannot be; the text names the line."""


class Family(NamedTuple):
    """A row: its task functions' names, as in `family`, and where it stands (`file:line`)."""

    tasks: tuple[str, ...]
    concurrency: int | None
    demo: tuple[str, ...]
    where: str


class Families(dict[str, Family]):
    """The rows by family; `where` is the table's place (`file:line`)."""

    where: str

    def routes(self) -> dict[str, dict[str, str]]:
        """Return the route of each task: its family's queue, which has the family's name."""
        return {
            f"{name}.tasks.{task}": {"queue": name}
            for name, row in self.items()
            for task in row.tasks
        }

    def row(self, name: str) -> Family:
        """Return a family's row; raises BadTable if it has none."""
        if name not in self:
            raise BadTable(f"{self.where}: the table of families has no row {name}")
        return self[name]

    def check_tasks(self, name: str, app: Any) -> None:
        """Import a family's `tasks.py`, and check that its row names the tasks there.

        Raise BadTable, which names file and line, for a task without a row, a row without a task,
        and a package that is not installed.
        """
        row, module = self.row(name), f"{name}.tasks"
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise BadTable(
                f"{name}/tasks.py: {error}; if it is a package, name it in "
                f"{name}/requirements.txt, then `make pins install`"
            ) from None
        routed = [f"{module}.{task}" for task in row.tasks]
        for task in app.tasks.values():
            function = inspect.unwrap(task.run)
            if function.__module__ == module and task.name not in routed:
                line = function.__code__.co_firstlineno
                raise BadTable(
                    f"{name}/tasks.py:{line}: the task {task.name} is not in the row of {name} "
                    f"({row.where}), so it has no route: `make contracts` adds it"
                )
        for task, short in zip(routed, row.tasks, strict=True):
            if task not in app.tasks:
                raise BadTable(
                    f"{row.where}: {name}/tasks.py has no task {short}: `make contracts` removes it"
                )


def family(
    tasks: str, *, concurrency: int | None = None, demo: str = "", **unknown: object
) -> Family:
    """Return a row: its `tasks`, separated by blanks, are functions of the family's `tasks.py`.

    `concurrency` is the default of <FAMILY>_CONCURRENCY, the number of jobs that a worker runs at a
    time, for jobs that wait or use one core. Without it a worker runs one, or as many as the
    variable says, but at most one per core. `demo` are the arguments of its caller in the demo.
    Raise BadTable, which names the row's line, for anything else.
    """
    where = _caller()
    if unknown:
        raise BadTable(
            f"{where}: unknown key {min(unknown)!r} in the table of families; the keys are "
            f"{', '.join(KEYS)}"
        )
    if not isinstance(tasks, str) or not tasks.split():
        raise BadTable(f"{where}: tasks must be names separated by blanks, not {brief(tasks)}")
    names = tasks.split()
    for name in names:
        if not name.isidentifier():
            raise BadTable(f"{where}: a task is the name of a function, not {brief(name)}")
        if names.count(name) > 1:
            raise BadTable(f"{where}: the task {name} is named twice")
    is_number = isinstance(concurrency, int) and not isinstance(concurrency, bool)
    if concurrency is not None and not (is_number and 1 <= concurrency <= MAX_PROCESSES):
        raise BadTable(
            f"{where}: concurrency must be a whole number from 1 to {MAX_PROCESSES}, "
            f"not {brief(concurrency)}"
        )
    if not isinstance(demo, str):
        raise BadTable(f"{where}: demo must be the arguments in one string, not {brief(demo)}")
    return Family(tuple(names), concurrency, tuple(demo.split()), where)


def table(**rows: Family) -> Families:
    """Return the table; raises BadTable for a row that `family` did not make."""
    where = _caller()
    for name, row in rows.items():
        if not isinstance(row, Family):
            raise BadTable(f"{where}: the row {name} must be family(…), not {brief(row)}")
    families = Families(rows)
    families.where = where
    return families


def _caller() -> str:
    """Return the place in `celeryconfig.py` that calls `family` or `table`."""
    frame: Any = inspect.currentframe()
    place = frame.f_back.f_back
    return f"{Path(place.f_code.co_filename).name}:{place.f_lineno}"
