"""A family that one command has added runs on Docker, and nothing of it is left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import own_environment
from tests.support import power
from tests.support.copies import Copy
from tests.support.stack import docker

PREFIX = "task-cluster-copy"


@pytest.fixture
def copy(engine: None, tmp_path: Path) -> Iterator[Copy]:
    """A copy of the project, with a stack of its own."""
    copy = Copy(tmp_path)
    copy.environment = {**own_environment("copy"), "IMAGE_PREFIX": PREFIX}
    yield copy
    copy.run("make", "docker_compose_clean")
    images = docker("images", "--quiet", f"{PREFIX}/*").split()
    docker("rmi", "--force", *set(images))


def test_a_new_family_is_called_scaled_and_removed(copy: Copy) -> None:
    copy.run("make", "family", "NAME=power")
    copy.write("power/tasks.py", power.TASKS)
    copy.write("power/examples.py", power.EXAMPLES)
    copy.run("make", "contracts")

    started = copy.run("make", "docker_compose_start")
    assert "call-add\n10\n" in started
    assert "call-power\n1024\n" in started
    caller = ("docker", "compose", "run", "--rm", "--no-deps", "-T", "call-power")
    assert copy.run(*caller) == "1024\n"
    assert copy.run(*caller, "python", "-m", "callers.power", "3", "exponent=4") == "81\n"
    bad = copy.try_to_run(*caller, "python", "-m", "callers.power", "two")
    assert bad.returncode == 2
    assert bad.stderr.endswith("error: base must be a whole number, not 'two' (see --help)\n")
    copy.run("make", "docker_compose_scale", "SERVICE=power", "N=2")
    assert len(copy.run("docker", "compose", "ps", "--quiet", "power").split()) == 2
    assert copy.run("make", "test_power_task").splitlines()[-1] == "1024"

    copy.run("make", "docker_compose_clean")
    copy.run("make", "family_remove", "NAME=power")
    assert copy.status() == ""
