"""A system's client in its own process, and the requests to it (bench.peers.protocol)."""

import json
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import environments
from bench.processes import last_words, session
from bench.systems import System
from cluster.errors import ClusterError
from local.server import ROOT

#: Timeout of an answer, in seconds.
TIMEOUT = 600.0


class Conversation:
    """A client that waits for requests."""

    def __init__(
        self, system: System, env: Mapping[str, str], folder: Path, name: str = "client"
    ) -> None:
        self._name = f"{system.name}'s {name}"
        self._log = folder / f"{system.name}.{name}.log"
        line = ("python", "-m", f"bench.peers.{system.folder}.client")
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                environments.argv(system, line),
                env=env,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._popen.kill()
        self._popen.communicate()

    @property
    def pids(self) -> list[int]:
        """The client's processes."""
        return list(session(self._popen.pid))

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer; raises ClusterError for an error."""
        self.send(do, **arguments)
        return self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        """Send a request."""
        assert self._popen.stdin
        try:
            self._popen.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            self._raise_ended()

    def answer(self) -> dict[str, Any]:
        """Wait for an answer."""
        assert self._popen.stdout
        if not select.select([self._popen.stdout], [], [], TIMEOUT)[0]:
            raise ClusterError(f"{self._name} gave no answer within {TIMEOUT:g} s")
        line = self._popen.stdout.readline()
        if not line:
            self._raise_ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ClusterError(f"{self._name}: {answer['error']}")
        return answer

    def _raise_ended(self) -> None:
        raise ClusterError(f"{self._name} ended: {last_words(self._log)}")
