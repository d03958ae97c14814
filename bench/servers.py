"""The Redis server of a measurement: a new one, as local mode starts it, or a running one."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import psutil
import redis

from bench import environments
from bench.peers import protocol
from bench.programs import Conversation, Program, cpu_seconds
from bench.systems import OURS, WORKERS, System
from cluster.connections.password import VARIABLE
from local import server
from local.process import Process

#: Seconds after which a server that has not ended is killed.
STOP_TIMEOUT = 10.0
#: Variables that name a Celery cluster; Celery itself reads the first two.
_OF_CELERY = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", VARIABLE)


class RunningCluster:
    """The cluster that the environment names, whose workers already run."""

    version = "of the running cluster"

    def __init__(self) -> None:
        #: For the logs of programs.
        self.folder = Path(tempfile.mkdtemp(prefix="task-cluster-bench-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def variables(self, system: System = OURS) -> dict[str, str]:
        """Return the environment of a system's programs, which names the server."""
        return dict(os.environ)

    def persist(self, persistence: str) -> None:
        """Set `appendfsync`, unless the server is another's."""

    def reset(self) -> None:
        """Remove all keys, unless other programs may use them."""

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the server, or 0 if it may be on another machine."""
        return 0.0

    def workers(self, system: System) -> Iterable[Program]:
        """Start a system's workers, unless they already run."""
        return ()

    def client(self, system: System = OURS, name: str = "client") -> Conversation:
        """Start a client of a system."""
        argv = environments.argv(system, f"python -m bench.peers {system.module}")
        title = f"{system.name}'s {name}"
        return Conversation(title, argv, self.variables(system), self.folder)


class OwnServer(RunningCluster):
    """A new server on a free port, with a folder for its data."""

    def __init__(self, persistence: str) -> None:
        super().__init__()
        self._persistence = persistence
        self._process: Process | None = None
        self._secret = os.urandom(20).hex()
        self._password = self.folder / "password"
        self._password.write_text(self._secret)
        self._password.chmod(0o600)
        self._port = server.free_port()
        self._client = redis.Redis(port=self._port, password=self._secret)

    def __enter__(self) -> Self:
        os.environ["APPENDFSYNC"] = self._persistence  # read by local mode's server
        self._process = server.start(self._port, self._password, self.folder / "data")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.signal(signal.SIGTERM)
            if not self._process.wait(STOP_TIMEOUT):
                self._process.signal(signal.SIGKILL)
        super().__exit__()

    @property
    def url(self) -> str:
        """The URL of the cluster's database, with its password."""
        return f"redis://:{self._secret}@127.0.0.1:{self._port}/0"

    @property
    def version(self) -> str:  # type: ignore[override]  # known once it runs
        """The server's name and version."""
        info: dict[str, Any] = self._client.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info['redis_version'])}"

    def variables(self, system: System = OURS) -> dict[str, str]:
        """Return the environment of a system's programs, which names the server."""
        without = {name: value for name, value in os.environ.items() if name not in _OF_CELERY}
        url = f"redis://127.0.0.1:{self._port}/0"
        ours = {
            "CELERY_BROKER_URL": url,
            "CELERY_RESULT_BACKEND": url,
            VARIABLE: str(self._password),
            "LOCAL_STATE": str(self.folder / "state"),
            "ADD_CONCURRENCY": str(WORKERS),
            "LOG_LEVEL": "WARNING",
        }
        # Another database: Celery's remote control would reach both kinds of workers.
        other = f"{self.url.removesuffix('0')}1"
        peers = {protocol.URL: other, "RQ_REDIS_URL": other}  # read by rq's command
        found = ours if system.is_ours else peers
        return {**without, "PYTHONPATH": str(server.ROOT), **found, **dict(system.variables)}

    def persist(self, persistence: str) -> None:
        """Set `appendfsync`: always, everysec or no."""
        self._client.config_set("appendfsync", persistence)

    def reset(self) -> None:
        """Remove all keys: each turn begins with an empty server."""
        self._client.flushall()

    def keys(self) -> int:
        """Return the number of keys; a result is one."""
        return int(self._client.dbsize())

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the server."""
        return cpu_seconds([psutil.Process(self._process.pid)]) if self._process else 0.0

    def workers(self, system: System) -> Iterable[Program]:
        """Start a system's workers, one after the other."""
        for number, line in enumerate(system.workers):
            argv = environments.argv(system, line)
            name = f"{system.name}.worker{number}"
            yield Program(name, argv, self.variables(system), self.folder)
