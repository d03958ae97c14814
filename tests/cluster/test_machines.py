"""Several machines: a second project, with only workers, joins the Redis of the first."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.server import free_port
from tests.support.stack import Stack, docker, make


@pytest.fixture
def first(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A machine that runs only Redis, for other machines of its network."""
    settings = tmp_path / "first"
    port = free_port()
    settings.write_text(f"REDIS_PORT={port}\nREDIS_BIND={address()}\n")
    first = Stack(f"task-cluster-first-{os.getpid()}", settings, port, host=address())
    try:
        first.compose("up", "--detach", "--wait", "redis")
        yield first
    finally:
        first.compose("--profile", "*", "down", "--volumes")


@pytest.fixture
def second(first: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A machine that runs only workers of one family, on another network."""
    settings = tmp_path / "second"
    settings.touch()
    second = Stack(f"task-cluster-second-{os.getpid()}", settings, 0)
    variables = {
        "CELERY_BROKER_URL": f"redis://{first.host}:{first.port}/0",
        "JOB_LEASE": "2",
        "ADD_REPLICAS": "2",
    }
    environment = second.environment | variables
    try:
        done = make("docker_compose_join", "FAMILIES=add", environment=environment)
        assert done.returncode == 0, done.stderr
        yield second
    finally:
        second.compose("--profile", "*", "down", "--volumes")


def test_workers_of_another_machine_join_the_queue(first: Stack, second: Stack) -> None:
    with first.client() as client:
        assert client.map("add.tasks.longtime_add", [(i, i, 0.1) for i in range(60)]) == [
            2 * i for i in range(60)
        ]
        stats = client.app.control.inspect(timeout=20, limit=2).stats() or {}

    hosts = {
        second.inspect(container)["Config"]["Hostname"] for container in second.containers("add")
    }
    assert {name.removeprefix("add@").partition(".")[0] for name in stats} == hosts
    assert all(worker["total"].get("add.tasks.longtime_add") for worker in stats.values())
    assert second.compose("ps", "--services").splitlines() == ["add"]
    assert first.compose("ps", "--services").splitlines() == ["redis"]


def address() -> str:
    """Return an address of this machine that containers of every network reach."""
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    return docker("network", "inspect", "bridge", "--format", gateway)
