"""Local clusters to test with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from callers.client import Client
from tests.support.local import Local


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A cluster that all tests share: no test may kill its processes."""
    local = Local(tmp_path_factory.mktemp("local"), ADD_CONCURRENCY="4")
    try:
        local.wait_until_ready()
        yield local
    finally:
        assert local.stop() == 0, local.output()


@pytest.fixture(scope="session")
def client(local: Local) -> Iterator[Client]:
    """A client of the shared cluster."""
    with local.client() as client:
        yield client


@pytest.fixture
def own_local(tmp_path: Path) -> Iterator[Local]:
    """A cluster for one test, which may kill its processes."""
    local = Local(tmp_path, JOB_LEASE="3")
    try:
        local.wait_until_ready()
        yield local
    finally:
        local.stop()


@pytest.fixture
def server_only(tmp_path: Path) -> Iterator[Local]:
    """A server without any worker."""
    local = Local(tmp_path, "--server-only")
    try:
        local.wait_until_ready()
        yield local
    finally:
        local.stop()
