"""A task in a unit test has the values and errors that it has on a cluster."""

import os
import subprocess
import sys
import traceback
from typing import Any

import numpy as np
import pytest
from celery import Celery, chain, chord, group, xmap
from celery.app import app_or_default
from celery.exceptions import MaxRetriesExceededError
from kombu.exceptions import EncodeError

from callers import testing
from callers.client import Client
from callers.testing import run
from cluster.errors import ClusterError, DeadLetter, UnknownTask
from cluster.examples import BadExample, Example
from tests.support.families import BAD_JOBS, JOBS, check
from tests.support.repo import ROOT
from tests.unit import tested_tasks


def signature(name: str, *args: Any, **kwargs: Any) -> Any:
    """Return the signature of a task that has no route, with a queue."""
    app = Celery("test", set_as_current=False)
    return app.signature(f"tests.unit.tested_tasks.{name}", args, kwargs).set(queue="add")


def stored() -> dict[Any, Any]:
    """Return what the store holds."""
    store: Any = testing._app().backend
    return dict(store._blobs.of_key)


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_a_job_gives_its_value(job: Example) -> None:
    check(job, run(job.task, *job.args, **job.kwargs))

    assert stored() == {}


@pytest.mark.parametrize("job", BAD_JOBS, ids=str)
def test_a_bad_job_gives_its_error(job: BadExample) -> None:
    with pytest.raises(job.error) as caught:
        run(job.task, *job.args, **job.kwargs)

    assert job.words in str(caught.value)
    assert stored() == {}


# Values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "arrived"),
    [
        ((1, 2), "list", [1, 2]),
        ({1: 2}, "dict", {"1": 2}),
        (np.int64(7), "int", 7),
        ({"__type__": "int", "__value__": 1}, "dict", {"__type__": "int", "__value__": 1}),
        ("x" * 2_000_000, "str", "x" * 2_000_000),
        (10**400_000, "int", 10**400_000),
        ([10**5000] * 300, "list", [10**5000] * 300),
    ],
    ids=["tuple", "key", "scalar", "mark", "text", "integer", "list"],
)
def test_a_value_travels_as_on_a_cluster(value: Any, kind: str, arrived: Any) -> None:
    assert run(signature("echo"), value) == [kind, arrived]
    assert stored() == {}


def test_a_large_array_travels_without_a_store() -> None:
    array = np.asfortranarray(np.random.default_rng(1).random((300, 400)))
    kind, arrived = run(signature("echo", array))

    assert kind == "ndarray"
    assert arrived is not array
    assert arrived.flags.f_contiguous
    np.testing.assert_array_equal(arrived, array)


def test_a_result_is_decoded_from_its_json() -> None:
    assert run(signature("pair")) == [1, {"2": 3}]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (object(), EncodeError, "object is not JSON serializable"),
        (np.array([None]), TypeError, "cannot encode an array of object"),
        (np.ma.masked_array([1]), TypeError, "its mask would be lost"),
    ],
    ids=["object", "array of objects", "masked array"],
)
def test_what_cannot_be_sent_raises_the_same_error(
    value: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run("add.tasks.add", value, 1)


def test_what_is_nested_too_deeply_is_a_dead_letter() -> None:
    value: list[Any] = []
    for _ in range(300):
        value = [value]

    with pytest.raises(DeadLetter, match="nested too deeply"):
        run("add.tasks.tsum", value)


def test_a_result_that_cannot_be_stored_fails_the_job() -> None:
    with pytest.raises(EncodeError, match="object is not JSON serializable"):
        run(signature("unsendable"))


# Errors ----------------------------------------------------------------------------


def test_an_error_is_the_callers_and_its_cause_the_tasks() -> None:
    with pytest.raises(TypeError) as caught:
        run("add.tasks.add", "4", 6)

    cause = caught.value.__cause__
    assert cause is not caught.value
    assert isinstance(cause, TypeError)
    assert "add/tasks.py" in "".join(traceback.format_exception(cause))


def test_an_error_of_the_familys_own_class_keeps_class_and_text() -> None:
    with pytest.raises(tested_tasks.Odd, match=r"^odd \(7\)$"):
        run(signature("odd"))


@pytest.mark.parametrize("task", ["add.tasks.ad", "power.tasks.power"])
def test_an_unknown_task_is_refused_as_by_the_client(task: str) -> None:
    with pytest.raises(UnknownTask, match=f"no task is called '{task}'; (did you|known tasks)"):
        run(task, 4, 6)


def test_a_family_that_is_not_installed_is_one_sentence() -> None:
    app = Celery("test", set_as_current=False)
    with pytest.raises(ClusterError) as caught:
        run(app.signature("power.tasks.power", (2,)).set(queue="add"))

    assert str(caught.value) == (
        "cannot import 'power.tasks', the module of power.tasks.power: No module named 'power'"
    )


@pytest.mark.parametrize(("kind", "state"), [("Ignore", "IGNORED"), ("Reject", "REJECTED")])
def test_a_task_that_gives_no_result_is_an_error(kind: str, state: str) -> None:
    with pytest.raises(ClusterError, match=f"no_result gave no result: its state is {state}$"):
        run(signature("no_result", kind))


# Retries ---------------------------------------------------------------------------


def test_a_task_is_retried_up_to_its_limit() -> None:
    assert run("add.tasks.unsteady_add", 4, 6, 3) == 10
    with pytest.raises(ConnectionError, match="simulated failure of try 4"):
        run("add.tasks.unsteady_add", 4, 6, 4)


def test_a_retry_by_hand_does_not_wait_and_keeps_large_arguments() -> None:
    value = [10**5000] * 300
    assert run(signature("again"), value, times=3) == ["list", value]
    assert stored() == {}


def test_a_retry_by_hand_has_a_limit() -> None:
    with pytest.raises(MaxRetriesExceededError):
        run(signature("again", 1, times=3, limit=2))


# Jobs ------------------------------------------------------------------------------


def test_a_signature_is_run_with_its_arguments() -> None:
    with Client() as client:
        job = client.signature("add.tasks.add", 4)

        assert run(job, 6) == run(job, y=6) == 10
        assert run(client.app.signature("add.tasks.add", (4, 6), immutable=True), 7) == 10
        assert run(job.set(priority="high", countdown=10), 6) == 10
        with pytest.raises(ValueError, match="not 'urgent'"):
            run(job.set(priority="urgent"), 6)


def test_a_job_knows_its_id_and_headers() -> None:
    job = signature("about").set(task_id="an-id", headers={"trace": "7"})

    assert run(job) == ["an-id", 0, {"trace": "7"}]
    assert run(signature("about")) != run(signature("about"))


@pytest.mark.parametrize(
    "canvas",
    [
        chain(signature("echo", 1), signature("echo")),
        group([signature("echo", 1), signature("echo", 2)]),
        chord([signature("echo", 1)], signature("echo")),
        xmap(signature("echo"), [1, 2]),
        signature("echo", 1).set(link=signature("echo")),
        signature("echo", 1).set(link_error=signature("echo")),
    ],
    ids=["chain", "group", "chord", "map", "link", "link_error"],
)
def test_a_canvas_needs_a_cluster(canvas: Any) -> None:
    with pytest.raises(ClusterError, match=r"^run takes a single job, not .*: use a local cluster"):
        run(canvas)


@pytest.mark.parametrize("job", [5, None, {"task": "add.tasks.add"}])
def test_anything_else_is_not_a_job(job: Any) -> None:
    with pytest.raises(TypeError, match="a job is a task's name or a signature, not"):
        run(job)


@pytest.mark.parametrize("what", ["job", "result", "chain"])
def test_a_task_can_neither_submit_jobs_nor_read_results(what: str) -> None:
    with pytest.raises(ClusterError, match="use a local cluster"):
        run(signature("submits", what))


def test_the_current_app_stays_current() -> None:
    before, own = app_or_default(), Celery("own", set_as_current=False)
    own.set_current()
    try:
        run("add.tasks.add", 4, 6)
        with pytest.raises(TypeError):
            run("add.tasks.add", "4", 6)

        assert app_or_default() is own
    finally:
        before.set_current()


def test_nothing_connects() -> None:
    program = """
import sys

def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise AssertionError(f"{event} {arguments}")

sys.addaudithook(refuse)
from callers.testing import run

assert run("add.tasks.add", 4, 6) == 10
assert run("add.tasks.unsteady_add", 4, 6) == 10
assert run("add.tasks.add", 10**200_000, 1) == 10**200_000 + 1
try:
    run("add.tasks.error_of", "an id")
except Exception as error:
    print(error)
"""
    url = "redis://127.0.0.1:1/0"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "use a local cluster" in done.stdout
