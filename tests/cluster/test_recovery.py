"""Every accepted job has a result, even if a part is stopped, restarted or killed."""

import pytest

from callers.client import Client
from tests.cluster.conftest import LEASE
from tests.support.stack import Stack, docker
from tests.support.sums import SUMS, submit, values
from tests.support.waiting import eventually


def test_a_stopped_worker_finishes_what_it_runs_and_leaves_the_rest(
    stack: Stack, client: Client
) -> None:
    results = submit(client)
    stack.compose("stop", "add")
    states = [result.state for result in results]

    assert "STARTED" not in states
    assert "PENDING" in states
    assert stack.inspect(stack.compose("ps", "--all", "-q", "add"))["State"]["ExitCode"] == 0
    stack.compose("start", "add")
    assert values(client, results) == SUMS


def test_scaling_down_loses_nothing(
    stack: Stack, client: Client, three_add_workers: list[str]
) -> None:
    results = submit(client, len(three_add_workers))
    stack.scale("add", 1)

    assert len(stack.containers("add")) == 1
    assert values(client, results) == SUMS


@pytest.mark.parametrize("how", [("restart",), ("kill", "start")], ids="-".join)
def test_a_restart_of_redis_loses_nothing(
    stack: Stack, client: Client, how: tuple[str, ...]
) -> None:
    results = submit(client)
    (redis,) = stack.containers("redis")
    for command in how:
        docker(command, redis)

    assert values(client, results) == SUMS
    stack.wait_until_healthy("redis")


def test_a_killed_workers_jobs_run_elsewhere(
    stack: Stack, client: Client, three_add_workers: list[str]
) -> None:
    results = submit(client, len(three_add_workers))
    docker("kill", three_add_workers[0])

    # The lease, a quarter more until it is noticed, and the jobs themselves.
    assert values(client, results, LEASE * 1.25 + 30) == SUMS
    docker("start", three_add_workers[0])


def test_a_worker_whose_process_dies_is_started_again(stack: Stack, client: Client) -> None:
    (container,) = stack.containers("factorial")
    before = stack.inspect(container)["RestartCount"]
    stack.kill_the_worker(container)

    eventually("a restart", lambda: stack.inspect(container)["RestartCount"] == before + 1)
    assert client.call("factorial.tasks.factorial", 5) == 120


def test_a_worker_without_redis_is_unhealthy_and_recovers(stack: Stack, client: Client) -> None:
    (container,) = stack.containers("add")
    check = stack.inspect(container)["Config"]["Healthcheck"]["Test"][1]

    def is_fresh() -> bool:
        program = f"{check} && echo fresh || echo stale"
        return docker("exec", container, "sh", "-c", program) == "fresh"

    assert is_fresh()
    stack.compose("pause", "redis")
    try:
        eventually("its heartbeat is stale", lambda: not is_fresh(), 60)
    finally:
        stack.compose("unpause", "redis")
    eventually("its heartbeat is fresh", is_fresh, 60)
    assert client.call("add.tasks.add", 4, 6) == 10
