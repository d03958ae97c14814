"""The compose stack as a test sees it: from outside, by the commands a user has."""

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from callers.client import Client
from tests.repo.repo import ROOT
from tests.waiting import eventually

PASSWORD = ROOT / "secrets" / "redis_password"


def docker(*argv: str, seconds: float = 120) -> str:
    """Run a docker command and return what it prints; fail with its errors."""
    done = subprocess.run(
        ["docker", *argv], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(argv)}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


class Stack:
    """One project of the compose file, on a Redis port of its own."""

    def __init__(self, project: str, settings: Path, port: int) -> None:
        self.project = project
        self.port = port
        self.command = f"docker compose --env-file {settings}"

    def compose(self, *argv: str, seconds: float = 120) -> str:
        """Run a docker compose command on this stack and return what it prints."""
        options = self.command.split()[1:]
        return docker(*options, "--project-name", self.project, *argv, seconds=seconds)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def all_containers(self) -> list[str]:
        """Return the ids of all containers of the stack."""
        return self.compose("ps", "--all", "--quiet").split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what `docker inspect` says of a container."""
        answer: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return answer

    def scale(self, service: str, count: int) -> None:
        """Run so many containers of a service, and wait until they are healthy."""
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

    def client(self) -> Client:
        """Return a client of this stack, on the host."""
        password = quote(PASSWORD.read_text().strip(), safe="")
        url = f"redis://:{password}@127.0.0.1:{self.port}/0"
        return Client(url, url)
