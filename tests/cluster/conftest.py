"""The compose stack, built and started once."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from kombu.pools import connections, producers

from callers.client import Client
from local.server import free_port
from tests.support.flower import Flower
from tests.support.repo import ROOT
from tests.support.stack import Stack, make

LOGS = ROOT / ".test-logs"
#: Lease of the workers, in seconds: short, for the tests that kill a worker.
LEASE = 6
#: Concurrency of an add worker: low, so that jobs wait.
CONCURRENCY = 4


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine; without one the tests are skipped, or fail if CI requires it."""
    try:
        subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        if os.environ.get("REQUIRE_DOCKER"):
            pytest.fail("REQUIRE_DOCKER is set, but no Docker engine answers", pytrace=False)
        pytest.skip("no Docker engine answers: the compose stack is not tested")


@pytest.fixture(scope="session")
def stack_settings(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The stack that will be started."""
    subprocess.run([ROOT / "deploy" / "make_secrets"], check=True)
    port = free_port()
    settings = tmp_path_factory.mktemp("compose") / "settings"
    settings.write_text(
        f"REDIS_PORT={port}\nJOB_LEASE={LEASE}\nADD_CONCURRENCY={CONCURRENCY}\n"
        # Empty, as if they were not set.
        f"FLOWER_PORT={free_port()}\nFLOWER_READ_ONLY=\nQUEUE_MAX_LENGTH=\nLOG_LEVEL=\n"
    )
    return Stack(f"task-cluster-test-{os.getpid()}", settings, port)


@pytest.fixture(scope="session")
def docker_compose_project_name(stack_settings: Stack) -> str:
    """pytest-docker's name of the project."""
    return stack_settings.project


@pytest.fixture(scope="session")
def docker_compose_command(stack_settings: Stack) -> str:
    """pytest-docker's compose command."""
    return stack_settings.command


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """pytest-docker's compose file: the product's own."""
    return str(ROOT / "docker-compose.yml")


@pytest.fixture(scope="session")
def docker_setup(stack_settings: Stack) -> Iterator[list[str]]:
    """Build and start; remove the stack even if its start failed, as pytest-docker does not."""
    yield ["--profile callers build", "up --detach --wait"]
    LOGS.mkdir(exist_ok=True)
    (LOGS / "compose.log").write_text(stack_settings.compose("logs", "--no-color"))
    stack_settings.compose("--profile", "*", "down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    """No commands: `docker_setup` cleans up, even if the start failed."""
    return []


@pytest.fixture(scope="session")
def redis_stack(docker_services: object, stack_settings: Stack) -> Stack:
    """The running stack."""
    return stack_settings


@pytest.fixture(scope="session")
def rabbitmq_stack(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A second stack, with RabbitMQ, started by the user's command."""
    port, rabbitmq_port = free_port(), free_port()
    settings = tmp_path_factory.mktemp("rabbitmq") / "settings"
    settings.write_text(
        f"REDIS_PORT={port}\nRABBITMQ_PORT={rabbitmq_port}\nADD_CONCURRENCY={CONCURRENCY}\n"
        "BROKER=rabbitmq\nCOMPOSE_PROFILES=rabbitmq\n"
    )
    stack = Stack(f"task-cluster-rabbitmq-{os.getpid()}", settings, port, rabbitmq_port)
    try:
        done = make("docker_compose_start", environment=stack.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "call-add\n10\n" in done.stdout
        yield stack
    finally:
        LOGS.mkdir(exist_ok=True)
        (LOGS / "rabbitmq.log").write_text(stack.compose("logs", "--no-color"))
        make("docker_compose_clean", environment=stack.environment)


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Stack:
    """The running stack, with Redis as its broker unless a test names another."""
    running: Stack = request.getfixturevalue(f"{getattr(request, 'param', 'redis')}_stack")
    return running


@pytest.fixture(scope="session")
def flower(redis_stack: Stack) -> Flower:
    """The stack's Flower, started on demand."""
    monitoring = ("--profile", "monitoring")
    start = ("up", "--detach", "--wait", "--no-deps", "--build", "flower")
    redis_stack.compose(*monitoring, *start, seconds=300)
    address = redis_stack.compose(*monitoring, "port", "flower", "5555")
    return Flower(int(address.rpartition(":")[2]))


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    """A client of the stack, on the host."""
    with stack.client() as client:
        yield client
        # No test inherits broken connections of another.
        connection = client.app.connection_for_write()
        for pools in (producers, connections):
            pools[connection].force_close_all()
            del pools[connection]


@pytest.fixture
def three_add_workers(stack: Stack) -> Iterator[list[str]]:
    """The containers of the family add, scaled to three."""
    stack.scale("add", 3)
    yield stack.containers("add")
    stack.scale("add", 1)


@pytest.fixture
def make_environment(engine: None) -> dict[str, str]:
    """The environment of another stack, for commands that start one."""
    return own_environment("own")


def own_environment(name: str) -> dict[str, str]:
    """Return the environment in which the Makefile's commands use a stack of that name."""
    return {
        **os.environ,
        "BROKER": "redis",
        "COMPOSE_PROJECT_NAME": f"task-cluster-{name}-{os.getpid()}",
        **{name: str(free_port()) for name in ("REDIS_PORT", "RABBITMQ_PORT", "FLOWER_PORT")},
    }
