"""A local cluster for tests: its process, a client, and the record of its processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from callers.client import Client
from local.server import ROOT, free_port
from local.state import Running, State
from tests.support.waiting import eventually


class Local:
    """`python -m local start`, in a separate folder and on a free port.

    It runs the copy of the project in `folder/code`, if there is one.
    """

    def __init__(self, folder: Path, *options: str, **variables: str) -> None:
        self.port = free_port()
        self.state = State(folder / "state")
        self.password = folder / "password"
        if not self.password.exists():
            self.password.write_text("p@ss w\\rd\"'")
        self.env = {
            **os.environ,
            "BROKER": "redis",
            "LOCAL_STATE": str(self.state.folder),
            "REDIS_PORT": str(self.port),
            "REDIS_PASSWORD_FILE": str(self.password),
            **variables,
        }
        self.log = folder / "log"
        self.own_log = folder / "own-worker.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local", "start", *options],
                cwd=folder / "code" if (folder / "code").exists() else ROOT,
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until the server answers and all workers consume."""
        eventually("ready", lambda: "ready on" in self.output() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output()

    def output(self) -> str:
        """Return its output."""
        return self.log.read_text()

    def running(self, role: str) -> list[Running]:
        """Return the processes of a role: supervisor, server or a family's name."""
        return [process for process in self.state.running() if process.role == role]

    def command(
        self, *argv: str, seconds: float = 120, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python -m …` in the cluster's environment."""
        return subprocess.run(
            [sys.executable, "-m", *argv],
            cwd=ROOT,
            env={**self.env, **variables},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @contextmanager
    def own_worker(self, *module: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a worker beside those of the cluster, as in another terminal."""
        with (
            self.own_log.open("w") as log,
            subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env={**self.env, **variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()

    @property
    def url(self) -> str:
        """The server's URL, with the password."""
        password = quote(self.password.read_text(), safe="")
        return f"redis://:{password}@127.0.0.1:{self.port}/0"

    def client(self) -> Client:
        """Return a client of this cluster."""
        return Client(self.url, self.url)

    def stop(self) -> int:
        """Stop it as Ctrl-C does; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)
