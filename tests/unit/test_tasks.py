"""A task is a plain function, which can be called without a broker."""

from typing import Any

import pytest

from cluster.examples import BadExample, Example
from tests.support.families import BAD_JOBS, JOBS, check, function


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_a_task_gives_its_value_when_called_as_a_function(job: Example) -> None:
    value = function(job.task)(*job.args, **job.kwargs)

    check(job, value)


@pytest.mark.parametrize("job", BAD_JOBS, ids=str)
def test_a_task_refuses_bad_arguments_in_one_line(job: BadExample) -> None:
    with pytest.raises(job.error) as caught:
        function(job.task)(*job.args, **job.kwargs)

    assert job.words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_mat_mul_without_a_seed_has_other_operands_each_time() -> None:
    mat_mul = function("mat_mul.tasks.mat_mul")

    assert (mat_mul(3, 3) != mat_mul(3, 3)).any()


@pytest.mark.parametrize(
    ("variable", "task", "args"),
    [
        ("FACTORIAL_MAX_N", "factorial.tasks.factorial", (11,)),
        ("MAT_MUL_MAX_BYTES", "mat_mul.tasks.mat_mul", (2, 2)),
        ("MAT_MUL_MAX_BYTES", "mat_mul.tasks.tile", (2, 2, 7, [0, 1], [0, 1])),
        ("MAT_MUL_MAX_BYTES", "mat_mul.tasks.multiply", ([1], [1])),
        ("MAX_WAIT", "add.tasks.longtime_add", (1, 2, 11)),
    ],
)
def test_a_limit_is_the_environments(
    monkeypatch: pytest.MonkeyPatch, variable: str, task: str, args: tuple[Any, ...]
) -> None:
    monkeypatch.setenv(variable, "10")

    with pytest.raises(ValueError, match=f"at most 10|to 10.*{variable}"):
        function(task)(*args)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "٣"])
def test_an_invalid_limit_names_its_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FACTORIAL_MAX_N", text)

    with pytest.raises(ValueError, match="FACTORIAL_MAX_N must be a whole number from 1 to"):
        function("factorial.tasks.factorial")(1)
