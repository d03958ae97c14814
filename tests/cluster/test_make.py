"""The commands of the Makefile that start and stop the stack, and their errors."""

import socket
import subprocess

import pytest

from tests.support.families import FAMILIES
from tests.support.flower import PASSWORD as FLOWER_PASSWORD
from tests.support.repo import ROOT
from tests.support.stack import Stack, docker, make

URLS = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")


def test_one_command_starts_everything_and_shows_the_three_results(
    stack: Stack, make_environment: dict[str, str]
) -> None:
    of_project = (
        "--filter",
        f"label=com.docker.compose.project={make_environment['COMPOSE_PROJECT_NAME']}",
    )
    # Where the user's own commands find a cluster; the containers have theirs.
    elsewhere = dict.fromkeys(URLS, "redis://127.0.0.1:1/0")
    try:
        started = make("docker_compose_start", environment=make_environment | elsewhere)
        scaled = make("docker_compose_scale", "SERVICE=add", "N=3", environment=make_environment)
        monitored = make("monitoring", environment=make_environment)
        stopped = make("docker_compose_stop", environment=make_environment)
        running = docker("ps", "--format", "{{.Names}}: {{.Status}}", *of_project)
    finally:
        cleaned = make("docker_compose_clean", environment=make_environment)
    left = docker("ps", "--all", "--quiet", *of_project)
    left += docker("volume", "ls", "--quiet", *of_project)

    assert started.returncode == 0, started.stdout + started.stderr
    assert "call-add\n10\n" in started.stdout
    assert "call-factorial\n18192063202303451348…" in started.stdout
    assert "call-mat_mul\n[[" in started.stdout
    assert scaled.returncode == 0, scaled.stderr
    assert monitored.returncode == 0, monitored.stderr
    assert monitored.stdout.splitlines()[-1] == (
        f"Flower: http://127.0.0.1:{make_environment['FLOWER_PORT']}, user flower, "
        "password in secrets/flower_password"
    )
    assert FLOWER_PASSWORD.read_text().strip() not in monitored.stdout + monitored.stderr
    assert stopped.returncode == 0, stopped.stderr
    assert running == ""
    assert cleaned.returncode == 0, cleaned.stderr
    assert left == ""


def test_a_missing_engine_is_one_line(make_environment: dict[str, str]) -> None:
    make_environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    done = make("docker_compose_start", environment=make_environment)

    assert done.returncode != 0
    assert done.stderr.startswith("error: the Docker engine does not answer: start it")


@pytest.mark.parametrize(
    ("target", "variable"), [("docker_compose_start", "REDIS_PORT"), ("monitoring", "FLOWER_PORT")]
)
def test_a_port_in_use_is_one_line_and_changes_nothing(
    stack: Stack, make_environment: dict[str, str], target: str, variable: str
) -> None:
    of_project = (
        "--filter",
        f"label=com.docker.compose.project={make_environment['COMPOSE_PROJECT_NAME']}",
    )
    up = ["docker", "compose", "up", "--detach", "--wait", "redis"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        try:
            subprocess.run(up, cwd=ROOT, env=make_environment, check=True, capture_output=True)
            before = docker("ps", "--quiet", *of_project)
            done = make(target, environment=make_environment | {variable: port})
            after = docker("ps", "--quiet", *of_project)
        finally:
            make("docker_compose_clean", environment=make_environment)

    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        f"error: port {port} is already in use: set {variable} to another port in .env, "
        "or stop the program that uses it (a local cluster: make local_stop)"
    )
    assert before
    assert after == before


@pytest.mark.parametrize(
    "arguments", [(), ("SERVICE=redis", "N=2"), ("SERVICE=ad", "N=2"), ("SERVICE=add", "N=x")]
)
def test_scaling_what_cannot_be_is_wrong_usage(
    make_environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    done = make("docker_compose_scale", *arguments, environment=make_environment)

    assert done.returncode == 2
    names = " ".join(sorted(FAMILIES))
    assert f"name a family ({names}) and its number of workers: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_joining_no_named_cluster_is_one_line(make_environment: dict[str, str]) -> None:
    done = make("docker_compose_join", environment=make_environment)

    assert done.returncode == 2
    assert "set CELERY_BROKER_URL to the other machine's Redis, such as " in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("families", ["", "redis", "add redis"])
def test_joining_with_no_family_is_one_line(
    make_environment: dict[str, str], families: str
) -> None:
    make_environment["CELERY_BROKER_URL"] = "redis://127.0.0.1:1/0"
    done = make("docker_compose_join", f"FAMILIES={families}", environment=make_environment)

    assert done.returncode == 2
    assert f"FAMILIES names some of {' '.join(sorted(FAMILIES))}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_broker_is_the_default(make_environment: dict[str, str]) -> None:
    make_environment["BROKER"] = ""

    assert make("help", environment=make_environment).returncode == 0


def test_an_unknown_broker_is_one_line(make_environment: dict[str, str]) -> None:
    done = make("docker_compose_start", "BROKER=kafka", environment=make_environment)

    assert done.returncode == 2
    assert "BROKER must be redis or rabbitmq, not 'kafka'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_of_rabbitmq_in_use_is_one_line(
    rabbitmq_stack: Stack, make_environment: dict[str, str]
) -> None:
    make_environment["BROKER"] = "rabbitmq"
    make_environment["RABBITMQ_PORT"] = str(rabbitmq_stack.rabbitmq_port)
    try:
        done = make("docker_compose_start", environment=make_environment)
    finally:
        make("docker_compose_clean", environment=make_environment)

    assert done.returncode != 0
    port = rabbitmq_stack.rabbitmq_port
    assert f"error: port {port} is already in use: set RABBITMQ_PORT" in done.stderr
