"""The families' rows in the text of `README.md`; those of added families are derived."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class Task(NamedTuple):
    """What a row says of a task: its name, its parameters, and the first line of its docstring."""

    name: str
    parameters: Sequence[str]
    summary: str


def add_rows(text: str, family: str, after: str) -> str:
    """Return the text with an empty row for a family, after those of another."""
    found = _rows(after).search(text)
    if not found:
        raise ValueError(f"README.md has no row of the family {after}")
    return f"{text[: found.end()]}{_row(family, Task(family, (), ''))}{text[found.end() :]}"


def remove_rows(text: str, family: str) -> str:
    """Return the text without a family's rows."""
    return _rows(family).sub("", text)


def set_rows(text: str, family: str, tasks: Sequence[Task]) -> str:
    """Return the text in which a family has one row for each of these tasks."""
    rows = "".join(_row("" if index else family, task) for index, task in enumerate(tasks))
    new, count = _rows(family).subn(lambda _: rows, text)
    if not count:
        raise ValueError(f"README.md has no row of the family {family}")
    return new


def _rows(family: str) -> re.Pattern[str]:
    """Return what matches the rows of a family: only the first one names it."""
    return re.compile(
        rf"^\| \[`{family}`\]\({family}/tasks\.py\) \|.*\n(?:\| \|.*\n)*", re.MULTILINE
    )


def _row(family: str, task: Task) -> str:
    link = f"[`{family}`]({family}/tasks.py) " if family else ""
    returns = task.summary.removeprefix("Return ").removesuffix(".")
    cells = f"`{task.name}({', '.join(task.parameters)})`", returns
    return f"| {link}| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def parameters(described: Sequence[dict[str, Any]]) -> list[str]:
    """Return the parameters of a contract as a row shows them."""
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    return [
        f"{stars.get(each['kind'], '')}{each['name']}"
        f"{'' if each['required'] or each['kind'] in stars else '=…'}"
        for each in described
    ]
