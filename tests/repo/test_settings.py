"""Every variable is in .env.example, with its default and when to change it."""

import re

import pytest

from celeryconfig import families
from tests.support.families import FAMILIES
from tests.support.repo import ROOT, compose, files, read

#: Variables whose names contain a family's.
PER_FAMILY = {
    f"{family.upper()}_{what}" for family in FAMILIES for what in ("REPLICAS", "CONCURRENCY")
}
#: Set by the project for its own processes: a user does not change them.
INTERNAL = {
    "WORKER_HEARTBEAT_FILE",
    "BEAT_HEARTBEAT_FILE",
    "LOCAL_STATE",
    "REDIS_HOST",
    "RABBITMQ_HOST",
    "JOIN_BROKER_URL",
    "JOIN_RESULT_BACKEND",
    "REQUIRE_DOCKER",
    "PYTHONWARNINGS",
}
#: Set by the compose stack for its containers, whatever a user has for other programs.
OF_THE_STACK = {
    "CELERY_BROKER_URL",
    "CELERY_RESULT_BACKEND",
    "REDIS_PASSWORD_FILE",
    "RABBITMQ_PASSWORD_FILE",
    "BEAT_STATE",
}
#: Read by Compose itself.
OF_COMPOSE = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}

EXAMPLE = dict(re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", read(".env.example"), re.MULTILINE))


def used() -> set[str]:
    """Return the variables that compose, scripts and code read."""
    names = set(PER_FAMILY)
    for file in files():
        text = file.read_text() if file.suffix in {".py", ".yml", ""} else ""
        if file.relative_to(ROOT).parts[0] in {"tests", ".ci"}:
            continue
        names.update(re.findall(r"\$\{([A-Z_]+):-", text))
        names.update(re.findall(r"^ +([A-Z_]+):$", text, re.MULTILINE))  # passed on by Compose
        names.update(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', text))
        names.update(re.findall(r'settings\.(?:integer|choice)\("([A-Z_]+)"', text))
        names.update(re.findall(r'^VARIABLE = "([A-Z_]+)"', text, re.MULTILINE))
    return names - INTERNAL


def test_the_example_has_every_variable_that_is_read_and_no_other() -> None:
    assert set(EXAMPLE) == used() | OF_COMPOSE


@pytest.mark.parametrize("variable", EXAMPLE)
def test_a_variable_is_explained(variable: str) -> None:
    lines = read(".env.example").splitlines()
    above = lines[lines.index(f"#{variable}={EXAMPLE[variable]}") - 1]

    # A comment, or the line before it in a group with one.
    assert above.startswith("#")


def test_the_compose_files_defaults_are_those_of_the_example() -> None:
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", read("docker-compose.yml")))

    assert {name: default for name, default in defaults.items() if name not in INTERNAL} == {
        name: EXAMPLE[name] for name in defaults if name not in INTERNAL
    }


def test_compose_repeats_no_default_of_the_code() -> None:
    for service in compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            assert value is None or name in INTERNAL | OF_THE_STACK, name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_concurrency_of_the_example_is_the_codes(family: str) -> None:
    assert EXAMPLE[f"{family.upper()}_CONCURRENCY"] == str(families[family].concurrency or 1)


@pytest.mark.parametrize(
    ("file", "pattern", "variable"),
    [
        ("celeryconfig.py", r'"TASK_TIME_LIMIT", (\d+)', "TASK_TIME_LIMIT"),
        ("celeryconfig.py", r'"JOB_LEASE", (\d+)', "JOB_LEASE"),
        ("celeryconfig.py", r'"MAX_DELIVERIES", (\d+)', "MAX_DELIVERIES"),
        ("celeryconfig.py", r'"QUEUE_MAX_LENGTH", ([\d_]+)', "QUEUE_MAX_LENGTH"),
        ("celeryconfig.py", r'"MAX_MESSAGE_BYTES", ([\d *]+)', "MAX_MESSAGE_BYTES"),
        ("celery_streams/transport/validation.py", r"^MAX_BYTES = ([\d *]+)", "MAX_MESSAGE_BYTES"),
        ("celeryconfig.py", r'"MAX_COUNTDOWN", ([\d_]+)', "MAX_COUNTDOWN"),
        ("celeryconfig.py", r'"RESULT_EXPIRES", ([\d_]+)', "RESULT_EXPIRES"),
        ("cluster/heartbeat.py", r'"WORKER_HANG_TIMEOUT", (\d+)', "WORKER_HANG_TIMEOUT"),
        ("celeryconfig.py", r'"REDIS_PORT", (\d+)', "REDIS_PORT"),
        ("celeryconfig.py", r'"RABBITMQ_PORT", (\d+)', "RABBITMQ_PORT"),
        ("local/commands.py", r'"REDIS_PORT", (\d+)', "REDIS_PORT"),
        ("add/tasks.py", r"^MAX_WAIT = (\d+)", "MAX_WAIT"),
        ("factorial/tasks.py", r"^MAX_N = ([\d_]+)", "FACTORIAL_MAX_N"),
        ("cluster/values/matrices.py", r"^MAX_BYTES = ([\d *]+)", "MAT_MUL_MAX_BYTES"),
    ],
)
def test_the_codes_defaults_are_those_of_the_example(
    file: str, pattern: str, variable: str
) -> None:
    found = re.search(pattern, read(file), re.MULTILINE)

    assert found
    product = 1
    for factor in found[1].split("*"):
        product *= int(factor)
    assert product == int(EXAMPLE[variable])


@pytest.mark.parametrize(
    ("file", "pattern", "variable"),
    [
        ("celeryconfig.py", r'"REDIS_TRANSPORT", "(\w+)"', "REDIS_TRANSPORT"),
        ("cluster/settings.py", r'"LOG_LEVEL", "(\w+)"', "LOG_LEVEL"),
        ("deploy/flower/monitor.py", r'pop\(VARIABLE, ""\) or "(\w+)"', "FLOWER_READ_ONLY"),
        ("local/server.py", r'"APPENDFSYNC", "(\w+)"', "APPENDFSYNC"),
    ],
)
def test_the_codes_words_are_those_of_the_example(file: str, pattern: str, variable: str) -> None:
    assert re.findall(pattern, read(file)) == [EXAMPLE[variable]]
