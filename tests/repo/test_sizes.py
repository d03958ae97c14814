"""A module has one subject, and a class one responsibility: neither grows past what one reads."""

import ast
from pathlib import Path

import pytest

from tests.support.repo import ROOT

PACKAGES = (
    "celery_streams",
    "cluster",
    "callers",
    "develop",
    "local",
    "add",
    "factorial",
    "mat_mul",
    "deploy",
)
MAX_MODULE, MAX_CLASS = 400, 300
#: Classes with a closer limit: kombu's channel only adapts its hooks.
CLOSER = {"Channel": 250}


FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_and_classes_are_short(file: Path) -> None:
    text = file.read_text()
    classes = [each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.ClassDef)]
    lines = {each.name: (each.end_lineno or 0) - each.lineno + 1 for each in classes}

    assert text.count("\n") <= MAX_MODULE
    assert {name: n for name, n in lines.items() if n > CLOSER.get(name, MAX_CLASS)} == {}
