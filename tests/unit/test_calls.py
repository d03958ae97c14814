"""Calls of tasks as methods, at run time and for a type checker."""

import copy
from pathlib import Path
from typing import Any

import mypy.api
import pytest

from callers.calls import Tasks
from tests.support.repo import ROOT


def test_a_method_calls_the_task_of_its_name() -> None:
    calls: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> int:
        calls.append((args, kwargs))
        return 10

    tasks: Any = Tasks(call)

    assert tasks.add.add(4, y=6, timeout=5) == 10
    assert tasks.power.square(3) == 10  # of a family that was deployed later
    assert calls == [
        (("add.tasks.add", 4), {"y": 6, "timeout": 5}),
        (("power.tasks.square", 3), {}),
    ]


def test_names_that_python_asks_for_are_no_tasks() -> None:
    tasks: Any = Tasks(print)

    with pytest.raises(AttributeError):
        tasks.__wrapped__  # noqa: B018
    with pytest.raises(AttributeError):
        tasks.add.__wrapped__  # noqa: B018
    assert copy.copy(tasks).add.add.args == ("add.tasks.add",)


SNIPPET = """
from callers.calls import Tasks

tasks: Tasks
reveal_type(tasks.factorial.factorial(20, timeout=5))
reveal_type(tasks.mat_mul.mat_mul(2, 3, seed=7))
tasks.add.tsum((1, 2.5, 3j))
tasks.factorial.factorial("two")
tasks.add.tsum(["two"])
tasks.add.add(4)
tasks.add.ad(4, 6)
tasks.ad.add(4, 6)
"""


def test_mypy_knows_the_tasks_their_parameters_and_results(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    printed, _, _ = mypy.api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--no-pretty", str(snippet)]
    )
    lines = {
        int(line.split(":")[1]): line for line in printed.splitlines() if "snippet.py:" in line
    }

    expected = {
        5: 'Revealed type is "int"',
        6: 'Revealed type is "numpy.ndarray[Any, Any]"',
        8: 'has incompatible type "str"; expected "int"',
        9: 'has incompatible type "str"; expected "complex"',
        10: 'Missing positional argument "y"',
        11: 'has no attribute "ad"',
        12: '"Tasks" has no attribute "ad"',
    }
    assert lines.keys() == expected.keys(), printed
    for number, words in expected.items():
        assert words in lines[number].replace("builtins.", "")
