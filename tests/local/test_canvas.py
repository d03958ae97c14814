"""Celery's canvas on real workers, with its errors."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from celery import chain, chord, group
from celery.utils import uuid

from callers.canvas import EXAMPLES
from callers.client import Client
from mat_mul.examples import product
from tests.support.canvas import VALUES
from tests.support.local import Local
from tests.support.waiting import eventually


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_its_value(client: Client, name: str) -> None:
    assert EXAMPLES[name](client, 30) == VALUES[name]


def test_one_command_runs_all_examples(local: Local) -> None:
    done = local.command("callers.canvas")

    assert (done.stderr, done.returncode) == ("", 0)
    values = [line.strip() for line in done.stdout.splitlines()[1::2]]
    assert values == [str(value) for value in VALUES.values()]


@pytest.fixture
def add(client: Client) -> Any:
    """The signature of a sum."""
    return lambda *args: client.signature("add.tasks.add", *args)


@pytest.fixture
def tsum(client: Client) -> Any:
    """The signature of the sum of a list."""
    return client.signature("add.tasks.tsum")


@pytest.mark.parametrize("how", ["on_error", "set"])
def test_a_chord_fails_with_its_members_error_and_its_error_callback_runs(
    client: Client, add: Any, tsum: Any, how: str
) -> None:
    callback_id = uuid()
    callback = client.signature("add.tasks.error_of").set(task_id=callback_id)
    body = tsum.on_error(callback) if how == "on_error" else tsum.set(link_error=callback)

    with pytest.raises(TypeError, match=r"^x must be a number, not 'two'$"):
        client.call(chord([add(1, 1), add("two", 2), add(3, 3)], body))

    text = client.get(client.app.AsyncResult(callback_id))
    assert text == "TypeError: x must be a number, not 'two'"


def test_a_chain_fails_with_its_links_error(client: Client, add: Any) -> None:
    with pytest.raises(TypeError, match="x must be a number, not 'two'"):
        client.call(chain(add("two", 2), add(1), add(1)))


@pytest.mark.parametrize("shape", ["chain to a group", "chord in a chord", "group in a chord"])
def test_a_failure_reaches_a_caller_that_waits_for_a_later_job(
    client: Client, add: Any, tsum: Any, shape: str
) -> None:
    bad = add("two", 2)
    failing = {
        "chain to a group": chain(bad, group(add(1), add(2))),
        "chord in a chord": chord([chord([bad], tsum), add(1, 1)], tsum),
        "group in a chord": chord([chain(bad, group(add(1), add(2))), add(1, 1)], tsum),
    }
    with pytest.raises(TypeError, match="x must be a number, not 'two'"):
        client.call(failing[shape], timeout=20)


def test_a_job_whose_time_passes_while_another_runs_is_run(client: Client, add: Any) -> None:
    now = datetime.now(UTC)
    late = now - timedelta(seconds=50)  # the caller allows a minute, the worker any time

    wait = client.signature("add.tasks.longtime_add", 1, 1, seconds=11)
    assert client.call(chain(wait, add(4).set(eta=late))) == 6


def test_a_group_fails_with_its_first_failed_members_error(client: Client, add: Any) -> None:
    with pytest.raises(TypeError, match="x must be a number, not 'two'"):
        client.call(group(add(1, 1), add("two", 2), add(None, 3)))


def test_an_error_callback_that_fails_is_not_the_jobs_error(client: Client, add: Any) -> None:
    with pytest.raises(TypeError, match="x must be a number, not 'two'"):
        client.get(add("two", 2).on_error(add(1).set(task_id=uuid())).apply_async())


def test_long_integers_and_arrays_go_from_job_to_job_as_they_are(client: Client, add: Any) -> None:
    n = 10**5000
    assert client.call(chain(add(n, 1), add(n))) == 2 * n + 1

    matrix = client.signature("mat_mul.tasks.mat_mul", 3, 2, seed=7)
    wait = client.signature("add.tasks.longtime_add", 0, 1, seconds=1)
    values = client.call(group(matrix, wait))
    np.testing.assert_allclose(values[0], product(3, 2, 7))


def test_a_canvas_that_is_late_says_which_job_is(client: Client, add: Any) -> None:
    wait = client.signature("add.tasks.longtime_add", 4, 6, seconds=6)
    result = client.submit(chain(wait, add(1), add(1)))
    first = result.parent.parent
    eventually("the first job runs", lambda: first.state == "STARTED")
    with pytest.raises(TimeoutError, match=r"within 1 s: job \S+ still runs on add@") as caught:
        client.get(result, timeout=1)

    assert f"job {first.id} still runs" in str(caught.value)
    assert client.get(first) == 10


def test_a_group_calls_back_for_each_job_that_ends(client: Client, add: Any) -> None:
    ended: list[object] = []
    result = client.submit(group(add(i, i) for i in range(5)))

    assert client.get(result, on_ready=ended.append) == [0, 2, 4, 6, 8]
    assert {job.id for job in ended} == {job.id for job in result.results}  # type: ignore[attr-defined]


def test_a_callback_may_wait_for_another_job(client: Client, add: Any) -> None:
    values: list[int] = []
    result = client.submit(add(1, 1))

    assert client.get(result, on_ready=lambda _: values.append(client.call(add(7, 7)))) == 2
    assert values == [14]


def test_a_signature_may_come_from_json(client: Client, add: Any) -> None:
    signature = json.loads(json.dumps(add(4, 6)))
    broken: list[Any] = [{"task": signature["task"]}, {**signature, "options": None}]

    assert client.call(signature) == 10
    assert client.get(client.submit(signature)) == 10
    for each in broken:
        with pytest.raises(TypeError, match="a job is a task's name or a signature"):
            client.call(each)


@pytest.mark.parametrize(
    "style", ["publish_delayed", "apply_async", "send_task", "signature", "by_url_alone"]
)
def test_a_job_can_be_called_in_every_style_of_celery(
    local: Local, client: Client, style: str
) -> None:
    from celery import Celery, signature

    from add.tasks import add

    by_name = client.signature("add.tasks.add", 4, 6)
    broker, results = client.app.conf.broker_read_url, client.app.conf.result_backend
    styles: dict[str, Any] = {
        # As a program with the family's code.
        "publish_delayed": lambda: client.app.tasks[add.name].delay(4, 6),
        "apply_async": lambda: by_name.apply_async(countdown=0.1),
        "send_task": lambda: client.app.send_task("add.tasks.add", (4,), {"y": 6}),
        "signature": lambda: signature("add.tasks.add", args=(4, 6), app=client.app).delay(),
        "by_url_alone": lambda: Celery(
            broker=broker, backend=results, set_as_current=False
        ).send_task("add.tasks.add", (4, 6), queue="add"),
    }

    assert client.get(client.app.AsyncResult(styles[style]().id)) == 10
