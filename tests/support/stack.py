"""The compose stack for tests, used from outside by the user's commands."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from callers.client import Client
from tests.support.repo import ROOT
from tests.support.waiting import eventually

PASSWORD = ROOT / "secrets" / "redis_password"
RABBITMQ_PASSWORD = ROOT / "secrets" / "rabbitmq_password"


def docker(*argv: str, seconds: float = 120) -> str:
    """Run a docker command and return its output; fail with its errors."""
    done = subprocess.run(
        ["docker", *argv], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(argv)}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


def make(
    *argv: str, environment: dict[str, str], seconds: float = 300
) -> "subprocess.CompletedProcess[str]":
    """Run a target of the Makefile."""
    return subprocess.run(
        ["make", *argv],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Stack:
    """A project of the compose file, with or without overlays, on its own ports.

    `settings` is its `.env`; with RabbitMQ as its broker it sets BROKER and COMPOSE_PROFILES.
    """

    def __init__(
        self,
        project: str,
        settings: Path,
        port: int,
        rabbitmq_port: int = 0,
        *,
        overlays: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self.project = project
        self.host = host
        self.port = port
        self.rabbitmq_port = rabbitmq_port
        self.command = f"docker compose --env-file {settings}"
        # Explicit, so that the user's COMPOSE_FILE has no effect.
        self.files = [f"--file={file}" for file in ("docker-compose.yml", *overlays)]

    def compose(self, *argv: str, seconds: float = 120) -> str:
        """Run a docker compose command on this stack and return its output."""
        options = self.command.split()[1:]
        return docker(*options, *self.files, "--project-name", self.project, *argv, seconds=seconds)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def all_containers(self) -> list[str]:
        """Return the ids of all containers of the stack."""
        return self.compose("ps", "--all", "--quiet").split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return the output of `docker inspect` of a container."""
        answer: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return answer

    def scale(self, service: str, count: int) -> None:
        """Scale a service to `count` containers, and wait until they are healthy."""
        self.compose(
            *("up", "--detach", "--wait", "--no-deps", "--no-recreate", "--no-build"),
            *("--scale", f"{service}={count}", service),
        )

    def wait_until_healthy(self, service: str) -> None:
        """Wait until all of a service's containers are healthy."""
        eventually(
            f"{service} is healthy",
            lambda: (
                {
                    self.inspect(container)["State"]["Health"]["Status"]
                    for container in self.containers(service)
                }
                == {"healthy"}
            ),
            60,
        )

    def kill_the_worker(self, container: str) -> None:
        """Kill a worker by SIGKILL; after `docker kill`, the container would not be restarted."""
        command = ["docker", "exec", container, "python", "-c", _KILL_THE_WORKER]
        # The container ends with the worker, and this command with the container.
        assert subprocess.run(command, check=False, timeout=30).returncode in {0, 137}

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the Makefile's commands use this stack."""
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "BROKER": "rabbitmq" if self.rabbitmq_port else "redis",
            "REDIS_PORT": str(self.port),
            "RABBITMQ_PORT": str(self.rabbitmq_port),
        }

    @property
    def result_url(self) -> str:
        """The URL of this stack's results, seen from the host."""
        return f"redis://:{_quoted(PASSWORD)}@{self.host}:{self.port}/0"

    @property
    def broker_url(self) -> str:
        """The URL of this stack's broker, seen from the host."""
        if not self.rabbitmq_port:
            return self.result_url
        user = f"cluster:{_quoted(RABBITMQ_PASSWORD)}"
        return f"amqp://{user}@{self.host}:{self.rabbitmq_port}/cluster"

    def client(self) -> Client:
        """Return a client of this stack, on the host."""
        return Client(self.broker_url, self.result_url)


def _quoted(password: Path) -> str:
    return quote(password.read_text().strip(), safe="")


#: Kills the process that tini started: the worker itself.
_KILL_THE_WORKER = """
import os, signal
from pathlib import Path
for stat in Path("/proc").glob("[0-9]*/stat"):
    pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
    if parent == 1 and pid != os.getpid():
        os.kill(pid, signal.SIGKILL)
"""
