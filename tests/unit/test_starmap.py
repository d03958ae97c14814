"""`map` and `starmap` have the values of Celery's own, and their tasks see the same request."""

from typing import Any

import pytest
from celery import Celery
from celery import current_task as current
from celery.exceptions import Retry

from cluster.app import create

current_task: Any = current


def with_tasks(app: Celery[Any]) -> Any:
    """Return an app with a task of each kind."""

    @app.task(name="seen", shared=False)
    def seen(*args: Any) -> Any:
        request = current_task.request
        return [current_task.name, list(request.args), request.called_directly, request.id, args]

    @app.task(name="bound", bind=True, shared=False)
    def bound(self: Any, *args: Any) -> Any:
        self.request.mine = getattr(self.request, "mine", 0) + 1
        return [list(self.request.args), self.request.mine, args]

    @app.task(name="nested", shared=False)
    def nested(depth: int) -> Any:
        inner = nested(depth - 1) if depth else None
        return [list(current_task.request.args), inner]

    @app.task(name="lost", shared=False, autoretry_for=())
    def lost(*_: Any) -> None:
        raise ConnectionError("it was lost")

    @app.task(name="failing", shared=False)
    def failing(number: int) -> int:
        return 1 // number

    app.finalize()
    return app


@pytest.fixture(scope="module")
def ours() -> Any:
    """An app of the cluster."""
    return with_tasks(create("ours"))


@pytest.fixture(scope="module")
def celerys() -> Any:
    """An app with Celery's own `map` and `starmap`."""
    return with_tasks(Celery("celerys", task_cls="cluster.task:Task"))


def outcome(app: Any, kind: str, task: str, items: Any) -> Any:
    """Return the value of a job of `map` or `starmap`, and what is left of its request."""
    try:
        value = app.tasks[f"celery.{kind}"].run(app.signature(task), items)
    except Exception as error:  # noqa: BLE001 - it is compared
        value = repr(error)
    return value, app.tasks[task].request_stack.stack, current_task._get_current_object()


@pytest.mark.parametrize("kind", ["map", "starmap"])
@pytest.mark.parametrize("task", ["seen", "bound", "nested", "failing"])
@pytest.mark.parametrize(
    "items", [[], [[1]], [[1], [2], [1]], [[2, 3], [4, 5]], ["ab", "c"], [[1], [0]]], ids=str
)
def test_they_do_what_celerys_own_do(
    ours: Any, celerys: Any, kind: str, task: str, items: Any
) -> None:
    assert outcome(ours, kind, task, items) == outcome(celerys, kind, task, items)


@pytest.mark.parametrize("kind", ["map", "starmap"])
def test_an_error_that_can_pass_has_the_whole_retried(ours: Any, kind: str) -> None:
    task = ours.tasks[f"celery.{kind}"]
    causes: list[Any] = []

    def retry(**options: Any) -> Retry:
        causes.append(options["exc"])
        return Retry()

    task.retry = retry
    try:
        with pytest.raises(Retry):
            task.run(ours.signature("lost"), [[1]])
    finally:
        del task.retry

    assert [type(error) for error in causes] == [ConnectionError]


def test_arguments_that_are_none_are_an_error(ours: Any) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        ours.tasks["celery.starmap"].run(ours.signature("seen"), [[1], 2])

    assert current_task._get_current_object() is None
