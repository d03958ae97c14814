"""Every family, called from its caller's container and from outside."""

import pytest
from celery import chord

from callers.canvas import EXAMPLES
from callers.client import Client
from cluster.examples import Example
from tests.support.canvas import VALUES
from tests.support.families import JOBS, check
from tests.support.stack import Stack

pytestmark = pytest.mark.parametrize("stack", ["redis", "rabbitmq"], indirect=True)


@pytest.mark.parametrize(
    ("caller", "printed"),
    [
        ("call-add", "10"),
        ("call-factorial", "18192063202303451348…00000000000000000000 (77338 digits)"),
        ("call-mat_mul", "[["),
    ],
)
def test_a_caller_service_prints_its_result(stack: Stack, caller: str, printed: str) -> None:
    assert stack.compose("run", "--rm", "-T", caller).startswith(printed)


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_a_job_from_outside_gives_its_value(client: Client, job: Example) -> None:
    check(job, client.call(job.task, *job.args, **job.kwargs))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_canvas_from_outside_gives_its_value(client: Client, name: str) -> None:
    assert EXAMPLES[name](client, 30) == VALUES[name]


def test_a_worker_without_numpy_carries_an_array_that_it_cannot_read(client: Client) -> None:
    # The last member joins the chord: a job of add, whose image has no numpy.
    matrix = client.signature("mat_mul.tasks.mat_mul", 2, 2, seed=7)
    last = client.signature("add.tasks.longtime_add", 0, 1, seconds=1)

    with pytest.raises(TypeError, match=r"numbers\[0\] must be a number, not <array 2x2 of <f8"):
        client.call(chord([matrix, last], client.signature("add.tasks.tsum")))


def test_jobs_run_at_their_time_and_again_after_an_error_that_can_pass(client: Client) -> None:
    soon = client.signature("add.tasks.add", 4, 6).set(countdown=0.5)

    assert client.call(soon) == 10
    assert client.call("add.tasks.unsteady_add", 4, 6, failures=1) == 10


def test_a_thousand_jobs_come_back_in_order(client: Client) -> None:
    sums = client.map("add.tasks.add", [(i, i) for i in range(1000)], timeout=60)

    assert sums == [2 * i for i in range(1000)]


def test_three_replicas_work_side_by_side_under_names_of_their_own(
    stack: Stack, client: Client, three_add_workers: list[str]
) -> None:
    client.map("add.tasks.longtime_add", [(i, i, 0.3) for i in range(60)])
    stats = client.app.control.inspect(timeout=20, limit=5).stats() or {}
    done = {name: jobs["total"] for name, jobs in stats.items() if name.startswith("add@")}

    assert len(three_add_workers) == 3
    assert len(done) == 3
    assert all(total.get("add.tasks.longtime_add") for total in done.values()), done


def test_a_callers_image_has_no_familys_code_and_numpy_only_where_it_reads_arrays(
    stack: Stack,
) -> None:
    def can_import(caller: str, module: str) -> bool:
        program = f"import importlib.util; print(importlib.util.find_spec({module!r}) is not None)"
        return stack.compose("run", "--rm", "-T", caller, "python", "-c", program) == "True"

    assert not can_import("call-add", "add")
    assert not can_import("call-add", "numpy")
    assert can_import("call-mat_mul", "numpy")
