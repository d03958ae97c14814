"""The rows of the table of families, in the text of `celeryconfig.py`."""

import ast

from cluster.families import BadTable


def add_row(text: str, family: str) -> str:
    """Return the text with a row for a family, whose one task has its name."""
    table, _ = _parse(text)
    lines = text.splitlines(keepends=True)
    lines.insert((table.end_lineno or 0) - 1, f'    {family}=family("{family}"),\n')
    return "".join(lines)


def remove_row(text: str, family: str) -> str:
    """Return the text without a family's row."""
    _, rows = _parse(text)
    row = rows[family]
    lines = text.splitlines(keepends=True)
    before, _ = _cut(lines[row.lineno - 1], row.col_offset)
    last = row.end_lineno or row.lineno
    _, after = _cut(lines[last - 1], row.end_col_offset)
    rest = before + after.lstrip(" ").removeprefix(",").lstrip(" ")
    lines[row.lineno - 1 : last] = [f"{rest.rstrip()}\n"] if rest.strip() else []
    return "".join(lines)


def set_tasks(text: str, family: str, tasks: list[str]) -> str:
    """Return the text in which a family's row names these tasks."""
    _, rows = _parse(text)
    row = rows[family].value
    named = row.args[0] if isinstance(row, ast.Call) and row.args else None
    if not isinstance(named, ast.Constant):
        raise BadTable(
            f"celeryconfig.py:{rows[family].lineno}: the tasks of {family} are to be one string: "
            f'family("{" ".join(tasks)}")'
        )
    lines = text.splitlines(keepends=True)
    first, last = named.lineno - 1, (named.end_lineno or named.lineno) - 1
    before, _ = _cut(lines[first], named.col_offset)
    _, after = _cut(lines[last], named.end_col_offset)
    lines[first : last + 1] = [f'{before}"{" ".join(tasks)}"{after}']
    return "".join(lines)


def _cut(line: str, offset: int | None) -> tuple[str, str]:
    """Return a line's parts before and after an offset in bytes, as `ast` gives it."""
    encoded = line.encode()
    return encoded[:offset].decode(), encoded[offset:].decode()


def _parse(text: str) -> tuple[ast.Call, dict[str, ast.keyword]]:
    """Return the call of `table`, and its rows."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "families":
            table = node.value
            if isinstance(table, ast.Call):
                return table, {str(row.arg): row for row in table.keywords}
    raise ValueError("celeryconfig.py has no table of families")
