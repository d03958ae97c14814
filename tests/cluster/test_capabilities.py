"""Every command of docs/capabilities.md, on the compose stack."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import own_environment
from tests.support.capabilities import DOCKER, RUNNING, Row, rows, show
from tests.support.stack import Stack, make


@pytest.mark.parametrize("row", rows(RUNNING), ids=str)
def test_a_running_cluster_can(stack: Stack, row: Row) -> None:
    show(row, {**os.environ, "REDIS_PORT": str(stack.port)})


@pytest.fixture(scope="module")
def environment(engine: None) -> Iterator[dict[str, str]]:
    """The environment of a stack that the rows start and remove, in their order."""
    environment = own_environment("rows")
    yield environment
    assert make("docker_compose_clean", environment=environment).returncode == 0


@pytest.mark.parametrize("row", rows(DOCKER), ids=str)
def test_docker_can(environment: dict[str, str], row: Row) -> None:
    show(row, environment, 300)
