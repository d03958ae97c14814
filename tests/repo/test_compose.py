"""The required and the forbidden properties of the compose file's services."""

import re
from typing import Any

import pytest

from celeryconfig import task_time_limit
from tests.support.families import FAMILIES
from tests.support.repo import ROOT, compose, imports, read

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
SERVERS = ["redis", "rabbitmq"]
CALLERS = [name for name in SERVICES if name.startswith("call-")]
#: The other services that connect to the broker.
OTHERS = ["demo-parallel", "beat", "flower"]
BROKER_PASSWORD = {"source": "${BROKER:-redis}_password", "target": "broker_password"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]

    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "container_name" not in service


@pytest.mark.parametrize("name", [*SERVERS, *FAMILIES, "flower", "beat"])
def test_a_service_that_stays_is_healthy_before_it_is_used_and_comes_back(name: str) -> None:
    service = SERVICES[name]

    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", [*CALLERS, *FAMILIES, *OTHERS])
def test_a_client_waits_for_the_servers_and_reads_the_passwords_from_files(name: str) -> None:
    service = SERVICES[name]

    assert service["depends_on"] == {
        "redis": {"condition": "service_healthy"},
        "rabbitmq": {"condition": "service_healthy", "required": False},
    }
    assert service["environment"]["REDIS_PASSWORD_FILE"] == "/run/secrets/redis_password"
    assert service["environment"]["RABBITMQ_PASSWORD_FILE"] == "/run/secrets/broker_password"
    assert service["secrets"][:2] == ["redis_password", BROKER_PASSWORD]
    assert "PYTHON_IMAGE" in service["build"]["args"]


@pytest.mark.parametrize("name", [*CALLERS, *FAMILIES, *OTHERS])
def test_a_clients_servers_are_not_those_of_the_users_own_commands(name: str) -> None:
    environment = SERVICES[name]["environment"]

    assert environment["REDIS_HOST"] == "redis"
    assert environment["RABBITMQ_HOST"] == "rabbitmq"
    assert environment["CELERY_BROKER_URL"] == "${JOIN_BROKER_URL:-}"
    assert environment["CELERY_RESULT_BACKEND"] == "${JOIN_RESULT_BACKEND:-}"


@pytest.mark.parametrize("name", [*CALLERS, *FAMILIES])
def test_a_caller_and_a_worker_have_no_other_secret_and_publish_nothing(name: str) -> None:
    assert len(SERVICES[name]["secrets"]) == 2
    assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", CALLERS)
def test_a_caller_runs_only_when_asked(name: str) -> None:
    assert SERVICES[name]["profiles"] == ["callers"]
    assert SERVICES[name]["restart"] == "no"


def test_only_the_caller_that_reads_arrays_has_numpy() -> None:
    for name in CALLERS:
        reads_arrays = "numpy" in imports(ROOT / "callers" / f"{name.removeprefix('call-')}.py")

        assert SERVICES[name]["build"]["args"].get("EXTRA") == ("numpy" if reads_arrays else None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stop_outlasts_the_longest_job(family: str) -> None:
    seconds = re.fullmatch(
        r"\$\{STOP_GRACE_PERIOD:-(\d+)s\}", SERVICES[family]["stop_grace_period"]
    )

    assert seconds
    assert int(seconds[1]) >= task_time_limit + 10


def test_redis_is_durable_and_published_on_this_machine_alone() -> None:
    redis = SERVICES["redis"]

    assert redis["ports"] == ["${REDIS_BIND:-127.0.0.1}:${REDIS_PORT:-6379}:6379"]
    assert redis["volumes"] == ["redis:/data"]
    assert redis["command"][-4:] == [
        "--maxmemory",
        "2gb",
        "--appendfsync",
        "${APPENDFSYNC:-always}",
    ]
    assert redis["deploy"]["resources"]["limits"]["memory"] == "3g"
    assert "appendonly yes" in read("deploy/redis.conf")
    assert "appendfsync always" in read("deploy/redis.conf")
    assert "maxmemory-policy noeviction" in read("deploy/redis.conf")


def test_flower_is_started_when_asked_and_published_on_this_machine_alone() -> None:
    flower = SERVICES["flower"]

    assert flower["profiles"] == ["monitoring"]
    assert flower["ports"] == ["127.0.0.1:${FLOWER_PORT:-5555}:5555"]
    assert flower["volumes"] == ["flower:/data"]
    assert flower["secrets"] == ["redis_password", BROKER_PASSWORD, "flower_password"]
    assert flower["image"] == "${IMAGE_PREFIX:-task-cluster}/flower"
    assert flower["build"]["dockerfile"] == "deploy/flower/Dockerfile"
    assert "FLOWER_READ_ONLY" in flower["environment"]


def test_rabbitmq_is_started_when_asked_durable_and_publishes_amqp_on_this_machine_alone() -> None:
    rabbitmq = SERVICES["rabbitmq"]

    assert {*SERVERS, *CALLERS, *FAMILIES, *OTHERS} == set(SERVICES)
    assert rabbitmq["profiles"] == ["rabbitmq"]
    assert rabbitmq["ports"] == ["127.0.0.1:${RABBITMQ_PORT:-5672}:5672"]
    assert rabbitmq["volumes"] == ["rabbitmq:/var/lib/rabbitmq"]
    # Its data folder is named after it.
    assert rabbitmq["hostname"] == "rabbitmq"


def test_no_secret_can_reach_git_or_an_image() -> None:
    assert "/secrets/" in read(".gitignore").splitlines()
    assert read(".dockerignore").splitlines()[1] == "*"
    assert "!secrets" not in read(".dockerignore")
    for secret in compose()["secrets"].values():
        assert secret["file"].startswith("secrets/")


@pytest.mark.parametrize("folder", ["callers", *FAMILIES, "deploy/flower"])
def test_an_image_is_not_root_and_holds_no_other_familys_code(folder: str) -> None:
    text = read(f"{folder}/Dockerfile")
    copied = set(re.findall(r"^COPY (\S+)", text, re.MULTILINE))

    assert copied == {"celeryconfig.py", "celery_streams/", "cluster/", f"{folder}/"}
    assert "\nUSER 10001\n" in text
    assert re.search(r"^ARG PYTHON_IMAGE=\S+\nFROM \$\{PYTHON_IMAGE\}$", text, re.MULTILINE)
    assert not re.search(r"^(CMD|ENTRYPOINT) [^\[]", text, re.MULTILINE)
    assert not list((ROOT / folder).glob("*.sh"))
