"""The commands of the Makefile that start and stop the stack, and what they say when they can't."""

import socket

from tests.cluster.flower import PASSWORD as FLOWER_PASSWORD
from tests.cluster.stack import Stack, docker, make


def test_one_command_starts_everything_and_shows_the_three_results(
    stack: Stack, make_environment: dict[str, str]
) -> None:
    of_project = (
        "--filter",
        f"label=com.docker.compose.project={make_environment['COMPOSE_PROJECT_NAME']}",
    )
    try:
        started = make("docker_compose_start", environment=make_environment)
        scaled = make("docker_compose_scale", "SERVICE=add", "N=3", environment=make_environment)
        monitored = make("monitoring", environment=make_environment)
        stopped = make("docker_compose_stop", environment=make_environment)
        running = docker("ps", "--quiet", *of_project)
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


def test_no_engine_is_said_in_one_line(make_environment: dict[str, str]) -> None:
    make_environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    done = make("docker_compose_start", environment=make_environment)

    assert done.returncode != 0
    assert done.stderr.startswith("error: no Docker engine answers: start it")


def test_a_port_that_is_taken_is_said_in_one_line(
    stack: Stack, make_environment: dict[str, str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(make_environment["REDIS_PORT"])))
        taken.listen()
        try:
            done = make("docker_compose_start", environment=make_environment)
        finally:
            make("docker_compose_clean", environment=make_environment)

    assert done.returncode != 0
    port = make_environment["REDIS_PORT"]
    assert (
        f"error: port {port} of this machine is taken: set REDIS_PORT to another in .env"
        in done.stderr
    )


def test_scaling_without_saying_what_is_wrong_usage(make_environment: dict[str, str]) -> None:
    done = make("docker_compose_scale", environment=make_environment)

    assert done.returncode == 2
    assert "make docker_compose_scale SERVICE=add N=3" in done.stderr


def test_an_unknown_broker_is_said_in_one_line(make_environment: dict[str, str]) -> None:
    done = make("docker_compose_start", "BROKER=kafka", environment=make_environment)

    assert done.returncode == 2
    assert "BROKER must be redis or rabbitmq, not 'kafka'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_of_rabbitmq_that_is_taken_is_said_in_one_line(
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
    assert f"error: port {port} of this machine is taken: set RABBITMQ_PORT" in done.stderr
