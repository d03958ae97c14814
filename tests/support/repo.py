"""Readers of the project's files."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from celeryconfig import families

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    """Return the text of one of the project's files."""
    return (ROOT / name).read_text()


def files() -> list[Path]:
    """Return every file of the project, tracked by git or not."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def compose() -> dict[str, Any]:
    """Return the compose file, with resolved anchors."""
    content: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))
    return content


def make_targets() -> dict[str, str]:
    """Return each target of the Makefile that `make help` lists, with its recipe."""
    pattern = re.compile(r"^([a-z_]+|\$\(\S+\)):[^\n]*## .*\n((?:\t.*\n)*)", re.MULTILINE)
    return {
        name: recipe
        for target, recipe in pattern.findall(read("Makefile"))
        for name in expanded(target)
    }


def expanded(target: str) -> list[str]:
    """Return the names that a target of the Makefile stands for: one per family, or itself."""
    per_family = re.fullmatch(r"\$\(FAMILIES:%=(\w+%\w+)\)", target)
    return [per_family[1].replace("%", name) for name in families] if per_family else [target]


def imports(file: Path) -> Iterator[str]:
    """Yield the top-level name of each module that a Python file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
