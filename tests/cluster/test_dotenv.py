"""How Compose reads `.env`, which make follows, and what it passes to containers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import LEASE
from tests.support.spellings import REFUSED, SPELLINGS
from tests.support.stack import Stack

COMPOSE = """
name: spellings
services:
  a: {image: a, environment: {A: "${A-}"}}
"""


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("text", [text for text in SPELLINGS if SPELLINGS[text] is not REFUSED])
def test_compose_has_the_value_that_make_exports(tmp_path: Path, text: str) -> None:
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / ".env").write_bytes(text.encode())
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "B": "9"},
        capture_output=True,
        text=True,
        check=True,
    )
    value: str = json.loads(done.stdout)["services"]["a"]["environment"]["A"]

    assert value.replace("$$", "$") == SPELLINGS[text]


def test_a_container_has_the_settings_of_the_file_and_no_default(stack: Stack) -> None:
    lines = stack.compose("exec", "-T", "add", "env").splitlines()
    environment = dict(line.split("=", 1) for line in lines)

    assert environment["JOB_LEASE"] == str(LEASE)
    # Empty in the file: the worker takes its default.
    assert environment["QUEUE_MAX_LENGTH"] == ""
    assert "MAX_DELIVERIES" not in environment
