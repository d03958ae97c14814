"""Every command of docs/capabilities.md on the compose stack, as a person runs it."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.capabilities import DOCKER, RUNNING, Row, rows, show
from tests.cluster.stack import Stack
from tests.repo.repo import ROOT


@pytest.mark.parametrize("row", rows(RUNNING), ids=str)
def test_a_running_cluster_can(stack: Stack, row: Row) -> None:
    show(row, {**os.environ, "REDIS_PORT": str(stack.port)})


@pytest.fixture(scope="module")
def own_environment(make_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of a stack that the rows start and remove, in their order."""
    yield make_environment
    clean = ["make", "docker_compose_clean", "BROKER=rabbitmq"]
    subprocess.run(clean, cwd=ROOT, env=make_environment, check=True, timeout=120)


@pytest.mark.parametrize("row", rows(DOCKER), ids=str)
def test_docker_can(own_environment: dict[str, str], row: Row) -> None:
    show(row, own_environment, 300)
