"""Every command of docs/capabilities.md that does not need Docker."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from local.server import ROOT
from tests.support.capabilities import BARE, RUNNING, Row, rows, show
from tests.support.local import Local


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a cluster whose password is the project's own."""
    subprocess.run([ROOT / "deploy" / "make_secrets"], check=True)
    password_file = str(ROOT / "secrets" / "redis_password")
    local = Local(tmp_path_factory.mktemp("local"), REDIS_PASSWORD_FILE=password_file)
    try:
        local.wait_until_ready()
        yield local.env
    finally:
        local.stop()


@pytest.mark.parametrize("row", rows(RUNNING), ids=str)
def test_a_running_cluster_can(environment: dict[str, str], row: Row) -> None:
    show(row, environment)


@pytest.mark.parametrize("row", rows(BARE), ids=str)
def test_a_bare_machine_can(row: Row) -> None:
    show(row, os.environ)
