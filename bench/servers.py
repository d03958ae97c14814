"""The Redis server of a measurement: a new one, as local mode starts it, or a running one."""

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from bench.peers import protocol
from bench.processes import cpu_seconds
from bench.systems import WORKERS, System
from cluster.password import VARIABLE
from local import server
from local.process import Process

#: Seconds after which a server that has not ended is killed.
STOP_TIMEOUT = 10.0
#: Variables that name a Celery cluster; Celery itself reads the first two.
_OF_CELERY = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", VARIABLE)


class OwnServer:
    """A new server on a free port, with a folder for its data and for the logs of programs."""

    def __init__(self, persistence: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="task-cluster-bench-"))
        self._persistence = persistence
        self._process: Process | None = None
        self._password = self.folder / "password"
        secret = os.urandom(20).hex()
        self._password.write_text(secret)
        self._password.chmod(0o600)
        self._port = server.free_port()
        self._client = redis.Redis(port=self._port, password=secret)
        self._secret = secret

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does
        os.environ["APPENDFSYNC"] = self._persistence  # read by local mode's server
        self._process = server.start(self._port, self._password, self.folder / "data")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process:
            self._process.signal(signal.SIGTERM)
            if not self._process.wait(STOP_TIMEOUT):
                self._process.signal(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def variables(self, system: System) -> dict[str, str]:
        """Return the environment of a system's programs, which names the server."""
        without = {name: value for name, value in os.environ.items() if name not in _OF_CELERY}
        found = self._for_ours() if system.is_ours else self._for_peers()
        return {**without, "PYTHONPATH": str(server.ROOT), **found, **dict(system.variables)}

    @property
    def url(self) -> str:
        """The URL of the cluster's database, with its password."""
        return f"redis://:{self._secret}@127.0.0.1:{self._port}/0"

    def _for_ours(self) -> Mapping[str, str]:
        url = f"redis://127.0.0.1:{self._port}/0"
        return {
            "CELERY_BROKER_URL": url,
            "CELERY_RESULT_BACKEND": url,
            VARIABLE: str(self._password),
            "LOCAL_STATE": str(self.folder / "state"),
            "ADD_CONCURRENCY": str(WORKERS),
            "LOG_LEVEL": "WARNING",
        }

    def _for_peers(self) -> Mapping[str, str]:
        # Another database: Celery's remote control would reach both kinds of workers.
        url = f"redis://:{self._secret}@127.0.0.1:{self._port}/1"
        return {protocol.URL: url, "RQ_REDIS_URL": url}  # read by rq's command

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
        return cpu_seconds([self._process.pid]) if self._process else 0.0

    @property
    def version(self) -> str:
        """The server's name and version."""
        info: dict[str, Any] = self._client.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info['redis_version'])}"


class RunningCluster:
    """The cluster that the environment names, whose workers already run."""

    version = "of the running cluster"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="task-cluster-bench-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def variables(self, system: System) -> dict[str, str]:
        """Return the environment, which names the cluster."""
        return dict(os.environ)

    def persist(self, persistence: str) -> None:
        """Change nothing."""

    def reset(self) -> None:
        """Remove nothing: other programs may use it."""

    def cpu_seconds(self) -> float:
        """Return 0: its processes may be on another machine."""
        return 0.0


Server = OwnServer | RunningCluster
