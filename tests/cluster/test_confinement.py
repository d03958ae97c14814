"""Isolation: no open ports, no visible passwords, no privileges."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.families import FAMILIES
from tests.support.flower import PASSWORD as FLOWER_PASSWORD
from tests.support.flower import Flower
from tests.support.repo import ROOT
from tests.support.stack import PASSWORD, RABBITMQ_PASSWORD, Stack, docker

#: The broker whose stack has the service, and the service.
SERVICES = [
    ("redis", "redis"),
    ("rabbitmq", "rabbitmq"),
    *(("redis", service) for service in (*FAMILIES, "flower")),
]
BOTH = pytest.mark.parametrize("stack", ["redis", "rabbitmq"], indirect=True)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_redis_refuses_a_wrong_password(stack: Stack, password: str | None) -> None:
    with (
        redis.Redis(port=stack.port, password=password) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@BOTH
def test_nothing_is_published_beyond_this_machine(stack: Stack, flower: Flower) -> None:
    ports = [port for port in (stack.port, stack.rabbitmq_port) if port]
    if not stack.rabbitmq_port:
        ports.append(flower.port)
    published = set()
    for container in stack.all_containers():
        for bindings in stack.inspect(container)["NetworkSettings"]["Ports"].values():
            published |= {(binding["HostIp"], binding["HostPort"]) for binding in bindings or []}

    assert published == {("127.0.0.1", str(port)) for port in ports}
    own = _address_of_this_machine()
    for port in ports:
        with socket.socket() as client:
            client.settimeout(5)
            assert client.connect_ex((own, port)) != 0


@BOTH
def test_no_password_is_in_an_inspection_history_process_or_log(
    stack: Stack, flower: Flower
) -> None:
    files = (PASSWORD, RABBITMQ_PASSWORD, FLOWER_PASSWORD)
    passwords = [file.read_text().strip() for file in files]
    images = {stack.inspect(container)["Image"] for container in stack.all_containers()}
    shown = [
        docker("inspect", *stack.all_containers()),
        *(docker("history", "--no-trunc", image) for image in images),
        *(docker("inspect", image) for image in images),
        stack.compose("--profile", "*", "logs"),
        stack.compose("--profile", "*", "config"),
        *(docker("top", container, "-eo", "pid,args") for container in stack.all_containers()),
        subprocess.run(
            ["git", "log", "-p", "--all"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
        ).stdout,
    ]

    for password in passwords:
        assert len(password) == 40
        assert all(password not in text for text in shown)


@pytest.mark.parametrize(("stack", "service"), SERVICES, indirect=["stack"])
def test_a_container_is_not_root_and_cannot_change_itself(
    stack: Stack, flower: Flower, service: str
) -> None:
    def write(path: str) -> str:
        command = f"touch {path} 2>&1 && echo written || true"
        return stack.compose("exec", "-T", service, "sh", "-c", command)

    user = "999" if service in {"redis", "rabbitmq"} else "10001"
    assert stack.compose("exec", "-T", service, "id", "-u") == user
    assert "Read-only file system" in write("/usr/x")


@pytest.mark.parametrize(("stack", "service"), SERVICES, indirect=["stack"])
def test_a_container_is_limited_as_the_file_says(
    stack: Stack, flower: Flower, service: str
) -> None:
    config: dict[str, Any] = json.loads(
        stack.compose("--profile", "*", "config", "--format", "json")
    )
    limits = config["services"][service]["deploy"]["resources"]["limits"]
    host = stack.inspect(stack.containers(service)[0])["HostConfig"]

    assert host["Memory"] == int(limits["memory"])
    assert host["NanoCpus"] == int(float(limits["cpus"]) * 1e9)
    assert host["PidsLimit"] == limits["pids"]
    assert host["CapDrop"] == ["ALL"]


def test_a_build_gets_the_code_and_pinned_requirements_alone(engine: None, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    docker("build", f"--file={tmp_path}/Dockerfile", f"--output={tmp_path}/context", ".")
    arrived = {
        file.relative_to(tmp_path / "context")
        for file in (tmp_path / "context").rglob("*")
        if file.is_file()
    }

    shared = {"constraints.txt", "celeryconfig.py", "celery_streams", "cluster", "callers"}
    assert {file.parts[0] for file in arrived} == {*shared, *FAMILIES, "deploy"}
    assert {file.parts[1] for file in arrived if file.parts[0] == "deploy"} == {"flower"}
    for family in FAMILIES:
        names = {file.name for file in arrived if file.parts[0] == family}
        assert names >= {"__init__.py", "requirements.txt", "tasks.py", "worker.py"}
        assert names.isdisjoint({"examples.py", "Dockerfile"})


def _address_of_this_machine() -> str:
    """Return an address of this machine that is not loopback; nothing is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1: a route is looked up, no packet leaves
        address: str = probe.getsockname()[0]
        return address


def test_a_process_knows_its_containers_cores_and_memory(stack: Stack) -> None:
    image = stack.inspect(stack.containers("mat_mul")[0])["Image"]
    program = "from cluster import resources; print(resources.cores(), resources.memory())"

    limits = ("--cpus=1", "--memory=512m")
    assert docker("run", "--rm", *limits, image, "python", "-c", program) == "1 536870912"
