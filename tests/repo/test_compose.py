"""The required and the forbidden properties of the compose file's services."""

import re
from typing import Any

import pytest
import yaml

from celeryconfig import task_time_limit
from tests.families import FAMILIES
from tests.repo.repo import ROOT, compose, imports, read

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OVERLAY: dict[str, dict[str, Any]] = compose("deploy/rabbitmq.yml")["services"]
SERVERS = {"redis": SERVICES["redis"], "rabbitmq": OVERLAY["rabbitmq"]}
CALLERS = [name for name in SERVICES if name.startswith("call-")]
#: The other services that connect to the broker.
OTHERS = ["demo-parallel", "beat", "flower"]


@pytest.mark.parametrize("name", [*SERVICES, "rabbitmq"])
def test_a_service_is_confined(name: str) -> None:
    service = {**SERVICES, **SERVERS}[name]

    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "container_name" not in service


@pytest.mark.parametrize("name", [*SERVERS, *FAMILIES, "flower", "beat"])
def test_a_service_that_stays_is_healthy_before_it_is_used_and_comes_back(name: str) -> None:
    service = {**SERVICES, **SERVERS}[name]

    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", [*CALLERS, *FAMILIES])
def test_a_client_waits_for_redis_and_reads_the_password_from_its_file(name: str) -> None:
    service = SERVICES[name]

    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert service["environment"]["REDIS_PASSWORD_FILE"] == "/run/secrets/redis_password"
    assert service["secrets"] == ["redis_password"]
    assert "PYTHON_IMAGE" in service["build"]["args"]
    assert "ports" not in service


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
    assert flower["secrets"] == ["redis_password", "flower_password"]
    assert flower["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert flower["image"] == "${IMAGE_PREFIX:-task-cluster}/flower"
    assert flower["build"]["dockerfile"] == "deploy/flower/Dockerfile"
    assert flower["environment"]["FLOWER_READ_ONLY"] == "${FLOWER_READ_ONLY:-true}"


def test_the_workers_of_another_machine_are_those_of_all_families() -> None:
    overlay = yaml.safe_load(read("deploy/workers.yml"))["services"]

    assert overlay.pop("redis") == {"profiles": ["elsewhere"]}
    assert set(overlay) == set(FAMILIES)
    for service in overlay.values():
        assert set(service["environment"]) == {"CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}


@pytest.mark.parametrize("name", [*CALLERS, *FAMILIES, *OTHERS])
def test_every_client_of_redis_is_one_of_rabbitmq_under_its_overlay(name: str) -> None:
    service = OVERLAY[name]

    assert service["environment"]["CELERY_BROKER_URL"] == "amqp://cluster@rabbitmq:5672/cluster"
    assert service["environment"]["RABBITMQ_PASSWORD_FILE"] == "/run/secrets/rabbitmq_password"
    assert service["secrets"] == ["rabbitmq_password"]
    assert service["depends_on"] == {"rabbitmq": {"condition": "service_healthy"}}
    # Nothing else differs between the brokers.
    assert set(service) == {"environment", "secrets", "depends_on"}


def test_rabbitmq_is_durable_and_publishes_amqp_alone_on_this_machine_alone() -> None:
    assert (
        set(OVERLAY)
        == {"rabbitmq", *CALLERS, *FAMILIES, *OTHERS}
        == {*SERVICES, *SERVERS} - {"redis"}
    )
    assert OVERLAY["rabbitmq"]["ports"] == ["127.0.0.1:${RABBITMQ_PORT:-5672}:5672"]
    assert OVERLAY["rabbitmq"]["volumes"] == ["rabbitmq:/var/lib/rabbitmq"]
    # Its data folder is named after it.
    assert OVERLAY["rabbitmq"]["hostname"] == "rabbitmq"


def test_an_overlay_says_what_it_adds() -> None:
    for file in ROOT.glob("deploy/*.yml"):
        assert file.read_text().startswith("# Adds ")


def test_no_secret_can_reach_git_or_an_image() -> None:
    assert "/secrets/" in read(".gitignore").splitlines()
    assert read(".dockerignore").splitlines()[1] == "*"
    assert "!secrets" not in read(".dockerignore")
    secrets = {**compose()["secrets"], **compose("deploy/rabbitmq.yml")["secrets"]}
    for secret in secrets.values():
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
