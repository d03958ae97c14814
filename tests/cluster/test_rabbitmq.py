"""Guarantees of RabbitMQ alone; test_jobs and test_confinement have those of every broker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection, Producer, Queue

from callers.client import Client
from cluster.connections import rabbitmq
from cluster.errors import JobTimeout, Unreachable
from tests.support.families import FAMILIES
from tests.support.local import Local
from tests.support.repo import ROOT
from tests.support.stack import Stack, docker, make
from tests.support.sums import SUMS, submit, values
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("stack", ["rabbitmq"], indirect=True)


@pytest.fixture
def connection(client: Client) -> Iterator[Connection]:
    """A connection to the broker, without Celery."""
    with client.app.connection_for_write() as connection:
        yield connection


@pytest.fixture
def own_vhost(stack: Stack) -> Iterator[str]:
    """The URL of a virtual host without workers; the password is in the project's file."""
    control(stack, "add_vhost", "own")
    control(stack, "set_permissions", "--vhost", "own", "cluster", ".*", ".*", ".*")
    yield f"amqp://cluster@127.0.0.1:{stack.rabbitmq_port}/own"
    control(stack, "delete_vhost", "own")


def control(stack: Stack, *argv: str) -> str:
    """Run RabbitMQ's own command in its container."""
    return stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", *argv)


def caller(
    stack: Stack, *argv: str, seconds: float = 20, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a caller's command on the host; the passwords are in the project's files."""
    return subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        env={**stack.environment, **variables},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def local_start(state: Path, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a `python -m local start` that fails."""
    return subprocess.run(
        [sys.executable, "-m", "local", "start", *options],
        cwd=ROOT,
        env={**os.environ, "LOCAL_STATE": str(state), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def dead_letter(connection: Connection, reason: str, queue: str) -> Any:
    """Return the headers of the next dead letter of a queue with a reason."""
    dead = rabbitmq.DEAD(connection.default_channel)

    def take() -> Any:
        letter = dead.get(no_ack=True)
        if letter is None:
            return None
        headers: Any = letter.headers
        death = headers["x-death"][0]
        return headers if (death["reason"], death["queue"]) == (reason, queue) else None

    return eventually(f"a dead letter of {queue}: {reason}", take)


def test_every_queue_of_tasks_is_replicated_and_loses_nothing(stack: Stack) -> None:
    listed = control(
        stack, "list_queues", *("-p", "cluster", "--formatter", "json", "name", "arguments")
    )
    queues = {queue["name"]: _arguments(queue["arguments"]) for queue in json.loads(listed)}

    for family in FAMILIES:
        assert queues[family] == {
            "x-queue-type": "quorum",
            "x-delivery-limit": 3,
            "x-dead-letter-exchange": "dead",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    assert queues["dead"] == {"x-queue-type": "quorum"}


def test_a_message_that_no_worker_can_take_is_a_dead_letter(
    client: Client, connection: Connection
) -> None:
    client.app.send_task("add.tasks.unknown", (4, 6), queue="add")

    assert dead_letter(connection, "rejected", "add")["task"] == "add.tasks.unknown"


def test_a_message_whose_workers_all_die_is_a_dead_letter(
    client: Client, connection: Connection
) -> None:
    queues: dict[str, Queue] = client.app.amqp.queues
    queue = Queue("deadly", queue_arguments=queues["add"].queue_arguments)
    queue = queue(connection.default_channel)
    queue.declare()
    try:
        Producer(connection.default_channel).publish("kills", routing_key="deadly")
        for _ in range(1 + rabbitmq.DELIVERY_LIMIT):
            with client.app.connection_for_write() as worker:
                inbox = queue(worker.default_channel)
                eventually("the message", inbox.get)
                worker.collect()  # without closing: it dies
        assert dead_letter(connection, "delivery_limit", "deadly")
    finally:
        queue.delete()


@pytest.mark.parametrize("user", ["guest:guest", "cluster:wrong"])
def test_guest_and_a_wrong_password_are_refused(stack: Stack, user: str) -> None:
    url = f"amqp://{user}@127.0.0.1:{stack.rabbitmq_port}/cluster"
    with Connection(url) as connection, pytest.raises(AccessRefused):
        connection.connect()


def test_make_scales_the_workers_of_this_broker(stack: Stack) -> None:
    def consumers() -> str:
        listed = control(stack, "list_queues", "-p", "cluster", "name", "consumers")
        return dict(line.split("\t") for line in listed.splitlines())["add"]

    done = make("docker_compose_scale", "SERVICE=add", "N=2", environment=stack.environment)

    assert done.returncode == 0, done.stderr
    eventually("two consume", lambda: consumers() == "2")


def test_a_job_waits_for_its_time(client: Client) -> None:
    start = monotonic()
    result = client.app.send_task("add.tasks.add", (4, 6), countdown=1.5)

    assert result.get(timeout=20) == 10
    # RabbitMQ counts whole seconds; the worker waits for the rest.
    assert monotonic() - start > 1.4


def test_a_killed_workers_job_runs_again_at_once(stack: Stack, client: Client) -> None:
    result = client.submit("add.tasks.longtime_add", 4, 6, 5)
    eventually("it runs", lambda: result.state == "STARTED")
    # Its host name begins with its container's id.
    container = result.info["hostname"].removeprefix("add@").split(".")[0]
    before = stack.inspect(container)["RestartCount"]
    # Before the kill: its command may return when another worker already has the job.
    start = monotonic()
    stack.kill_the_worker(container)

    # The worker died during the job: the result is another worker's.
    assert result.state == "STARTED"
    assert result.get(timeout=30) == 10
    assert monotonic() - start > 5
    eventually("a restart", lambda: stack.inspect(container)["RestartCount"] == before + 1)


def test_a_restart_of_rabbitmq_loses_nothing(stack: Stack, client: Client) -> None:
    results = submit(client)
    (container,) = stack.containers("rabbitmq")
    docker("restart", container)

    assert values(client, results) == SUMS
    stack.wait_until_healthy("rabbitmq")
    assert client.call("add.tasks.add", 4, 6) == 10


def test_callers_on_this_machine_find_it_by_the_same_variables(stack: Stack) -> None:
    done = caller(stack, "callers.add", "4", "6")

    assert (done.stdout, done.stderr, done.returncode) == ("10\n", "", 0)


def test_a_wrong_password_is_refused_at_once(stack: Stack, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    done = caller(stack, "callers.add", "4", "6", RABBITMQ_PASSWORD_FILE=str(wrong))

    assert done.returncode == 1
    assert "refuses the password" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unreachable_rabbitmq_is_one_line(stack: Stack) -> None:
    done = caller(stack, "callers.add", "4", "6", "--timeout", "1", RABBITMQ_PORT="1")

    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach the broker at amqp://cluster:**@127.0.0.1")
    assert len(done.stderr.splitlines()) == 1


def test_a_rabbitmq_that_hangs_does_not_hang_the_callers(stack: Stack, client: Client) -> None:
    assert client.call("add.tasks.add", 4, 6) == 10
    stack.compose("pause", "rabbitmq")
    try:
        done = caller(stack, "callers.add", "4", "6", "--timeout", "2")
        start = monotonic()
        with pytest.raises(Unreachable, match="cannot reach the broker"):
            client.call("add.tasks.add", 4, 6, timeout=2)
        seconds = monotonic() - start
    finally:
        stack.compose("unpause", "rabbitmq")

    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach the broker at amqp://")
    assert len(done.stderr.splitlines()) == 1
    assert seconds < 30
    assert client.call("add.tasks.add", 4, 6) == 10


def test_a_queue_without_workers_is_an_error(stack: Stack, own_vhost: str) -> None:
    with (
        Client(own_vhost, stack.result_url) as client,
        pytest.raises(JobTimeout, match="no worker consumes the queue 'add'"),
    ):
        client.call("add.tasks.add", 4, 6, timeout=3)


def test_local_mode_uses_it_and_starts_a_server_for_results_alone(
    own_vhost: str, tmp_path: Path
) -> None:
    local = Local(tmp_path, CELERY_BROKER_URL=own_vhost)
    try:
        local.wait_until_ready()
        done = local.command("callers.add", "4", "6")
        servers = local.running("server")
    finally:
        status = local.stop()

    assert (done.stdout, done.returncode, status) == ("10\n", 0, 0), done.stderr
    assert len(servers) == 1


def test_local_mode_has_no_server_to_start_where_both_are_named(
    stack: Stack, tmp_path: Path
) -> None:
    done = local_start(
        tmp_path,
        "--server-only",
        CELERY_BROKER_URL=stack.broker_url,
        CELERY_RESULT_BACKEND=stack.result_url,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no server to start")


def test_local_mode_without_a_broker_is_an_error_of_one_line(stack: Stack, tmp_path: Path) -> None:
    done = local_start(tmp_path, CELERY_BROKER_URL="amqp://cluster@127.0.0.1:1/cluster")

    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach the broker at amqp://")
    assert len(done.stderr.splitlines()) == 1


def _arguments(listed: Any) -> dict[str, Any]:
    """Return a queue's arguments: rabbitmqctl gives them as a list of names, types and values."""
    if isinstance(listed, dict):
        return listed
    return {argument[0]: argument[-1] for argument in listed}
