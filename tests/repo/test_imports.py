"""Imports point downwards, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.families import FAMILIES
from tests.support.repo import ROOT, imports


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("celery_streams", set()),
        ("cluster", {"celery_streams"}),
        ("callers", {"celery_streams", "cluster"}),
        *((family, {"cluster"}) for family in FAMILIES),
        ("local", {"celery_streams", "celeryconfig", "cluster"}),
        ("bench", {"callers", "celery_streams", "cluster", "local"}),
        ("develop", {"callers", "celery_streams", "celeryconfig", "cluster"}),
        ("deploy/flower", {"celery_streams", "cluster"}),
    ],
)
def test_imports_go_downwards_only(package: str, allowed: set[str]) -> None:
    ours = {
        *("bench", "callers", "celeryconfig", "celery_streams", "cluster", "develop", "local"),
        *("tests", *FAMILIES),
    }
    found = {name for file in (ROOT / package).rglob("*.py") for name in imports(file)}

    assert found & ours <= allowed | {package}


def test_no_modules_import_each_other_in_a_circle() -> None:
    packages = ("celery_streams", "cluster", "callers", "local", "bench", "develop")
    files = {  # a package's `__init__` names its exports, and imports them when they are asked for
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for package in packages
        for file in (ROOT / package).rglob("*.py")
        if file.stem != "__init__"
    }
    graph = {name: {*imported(file)} & files.keys() - {name} for name, file in files.items()}

    assert [*TopologicalSorter(graph).static_order()]  # raises CycleError, which names the circle


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, also within functions and for types alone."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_test_module_is_imported_by_another() -> None:
    importing = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "tests").rglob("*.py")
        for name in imported(file)
        if any(part.startswith("test_") for part in name.split("."))
    ]

    assert importing == []
