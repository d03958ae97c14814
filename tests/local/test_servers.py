"""All forms of a server's URL, and users with few rights, with real workers and servers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, group
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls
from redis import Redis

from callers.client import Client
from local import server
from tests.support.local import Local
from tests.support.waiting import eventually

STOCK_TRANSPORT = "kombu.transport.redis:Transport"


class Server:
    """A Redis server with a socket and a port."""

    def __init__(self, folder: Path) -> None:
        self.port = server.free_port()
        self.socket = folder / "redis.sock"
        config = f'port {self.port}\nbind 127.0.0.1\nunixsocket "{self.socket}"\ndir "{folder}"\n'
        self._process = subprocess.Popen(
            [server.binary(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert self._process.stdin
        with self._process.stdin as pipe:
            pipe.write(config)
        eventually("the server listens", self.socket.exists)
        self.client: Any = Redis(unix_socket_path=str(self.socket), decode_responses=True)

    def stop(self) -> None:
        """Stop the server."""
        self.client.close()
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    """A server for one test."""
    own = Server(tmp_path)
    yield own
    own.stop()


class Program:
    """A worker of tests.streams.plain, started by Celery's command."""

    def __init__(self, folder: Path, *argv: str, **variables: str) -> None:
        self.log = folder / "worker.log"
        self.env = {**os.environ, **variables}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Return True if it consumes or has ended."""
        return " ready." in self.output() or self.process.poll() is not None

    def output(self) -> str:
        """Return its output."""
        return self.log.read_text()

    def stop(self) -> None:
        """Stop it."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)


def plain_worker(folder: Path, url: str, **variables: str) -> Program:
    argv = ("celery", "-A", "tests.streams.plain", "worker", "-c", "1", "-l", "info")
    return Program(folder, *argv, PLAIN_URL=url, **variables)


def in_plain(program: Program, code: str) -> str:
    """Evaluate an expression in a caller of the plain program, and return the printed value."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.streams.plain import *; print({code})"],
        env=program.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "form",
    [
        "redis+socket://{0.socket}",
        "socket://{0.socket}?virtual_host=3",
        "unix://{0.socket}?db=3",
        "valkey://127.0.0.1:{0.port}/3",
        "redis://localhost:{0.port}?db=3",
    ],
)
def test_a_plain_program_finds_its_server_by(form: str, redis: Server, tmp_path: Path) -> None:
    worker = plain_worker(tmp_path, form.format(redis))
    try:
        eventually("the worker is ready", worker.is_ready)
        assert worker.process.poll() is None, worker.output()
        assert in_plain(worker, "add.delay(4, 6).get(timeout=20)") == "10"
        assert in_plain(worker, "add.apply_async((4, 6), countdown=1).get(timeout=20)") == "10"
    finally:
        worker.stop()
    number = 3 if "3" in form else 0
    with Redis(unix_socket_path=str(redis.socket), db=number, decode_responses=True) as database:
        assert database.exists("celery:stream:0")


@pytest.mark.parametrize("url", ["sentinel://127.0.0.1:1", "redis+redis+x:///a", "rediss+foo://h"])
def test_a_plain_worker_says_in_one_line_what_it_cannot_use(url: str, tmp_path: Path) -> None:
    worker = plain_worker(tmp_path, url)
    try:
        assert worker.process.wait(30) != 0
    finally:
        worker.stop()
    lines = [line for line in worker.output().splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, worker.output()
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize("transport", ["streams", "lists"])
def test_a_cluster_over_a_socket(redis: Server, tmp_path: Path, transport: str) -> None:
    url = f"redis+socket://{redis.socket}"
    local = Local(
        tmp_path,
        CELERY_BROKER_URL=url,
        CELERY_RESULT_BACKEND=url,
        REDIS_PASSWORD_FILE="",
        REDIS_TRANSPORT=transport,
    )
    try:
        local.wait_until_ready()
        done = local.command("callers.add", "4", "6")
        assert (done.returncode, done.stdout) == (0, "10\n"), done.stderr
    finally:
        local.stop()


# Users and rights -----------------------------------------------------------------


def test_a_user_of_the_url_logs_in_with_the_password_of_the_file(
    redis: Server, tmp_path: Path
) -> None:
    redis.client.execute_command("ACL", "SETUSER", "work@er", "on", ">s3cr3t", "~*", "&*", "+@all")
    redis.client.execute_command("ACL", "SETUSER", "default", "off")
    (tmp_path / "password").write_text("s3cr3t\n")
    url = f"redis://work%40er:old@127.0.0.1:{redis.port}/0"
    local = Local(tmp_path, CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)
    try:
        local.wait_until_ready()
        done = local.command("callers.add", "4", "6")
        assert (done.returncode, done.stdout) == (0, "10\n"), done.stderr
        listed = local.command("celery_streams", "dead", "list")
        assert listed.stderr == "there are no dead letters\n"
    finally:
        local.stop()


# Other programs of the process ------------------------------------------------------


def test_a_stock_program_beside_a_client_is_untouched(local: Local) -> None:
    url = str(local.client().app.conf.broker_write_url)
    before = Celery(broker=url, backend=url, set_as_current=False)
    clients = [local.client(), local.client()]
    after = Celery(broker=url, backend=url, set_as_current=False)
    assert [each.call("add.tasks.add", 4, 6) for each in clients] == [10, 10]
    store: Any = Redis.from_url(url, decode_responses=True)
    for number, app in enumerate((before, after)):
        queue = f"stock{number}"
        app.send_task("a", (1,), queue=queue)
        signatures = [app.signature("a", (i,), queue=queue) for i in range(3)]
        group(signatures, app=app).apply_async()
        assert store.llen(queue) == 4
        assert not store.keys(f"{queue}:*")
        assert type(app.backend).__module__ == "celery.backends.redis"
        app.close()
        store.delete(queue)
    for each in clients:
        assert each.call("add.tasks.add", 4, 6) == 10
        each.close()


@pytest.mark.parametrize("scheme", ["redis", "rediss", "amqp", "amqps"])
def test_what_a_scheme_stands_for_is_kombus_own(scheme: str) -> None:
    Client("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0").close()
    Client("amqp://127.0.0.1:1/", "redis://127.0.0.1:1/0").close()

    assert TRANSPORT_ALIASES[scheme].startswith("kombu.")
    assert get_transport_cls(scheme).__module__.startswith("kombu.")


def test_the_environment_stays_what_it_was() -> None:
    code = (
        "import os; before = dict(os.environ); import celeryconfig; from callers.client import *;"
        "Client().close(); assert dict(os.environ) == before"
    )
    env = {**os.environ, "CELERY_BROKER_URL": "redis://h", "CELERY_RESULT_BACKEND": "redis://h"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)


def restricted(redis: Server, folder: Path, *rules: str) -> Program:
    """Return a worker whose user has all rights except those that `rules` remove."""
    redis.client.script_flush()
    user = ("ACL", "SETUSER", "worker", "on", ">s3cr3t", "~*", "&*", "+@all", *rules)
    redis.client.execute_command(*user)
    url = f"redis://worker:s3cr3t@127.0.0.1:{redis.port}/0"
    return plain_worker(folder, url, PYTHONWARNINGS="ignore")


@pytest.mark.parametrize(
    "rules",
    [
        ("-@dangerous",),
        ("-info",),
        ("-info", "-hello"),
        ("-client|unblock", "-client|setinfo"),
        (
            *("-@all", "+@connection", "+@stream", "+@scripting", "+@pubsub", "+@string", "+@set"),
            *("+@sortedset", "+@list", "+@keyspace", "+@transaction", "+time", "-@dangerous"),
        ),
    ],
)
def test_a_worker_needs_no_right_over_the_server(
    redis: Server, tmp_path: Path, rules: tuple[str, ...]
) -> None:
    worker = restricted(redis, tmp_path, *rules)
    try:
        eventually("the worker is ready", worker.is_ready)
        assert in_plain(worker, "add.delay(4, 6).get(timeout=20)") == "10"
    finally:
        worker.stop()
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize(
    "command", ["evalsha", "eval", "script|load", "publish", "psubscribe", "get", "sadd"]
)
def test_a_right_without_which_no_worker_starts_is_one_line(
    redis: Server, tmp_path: Path, command: str
) -> None:
    worker = restricted(redis, tmp_path, f"-{command}")
    try:
        assert worker.process.wait(30) == 1
    finally:
        worker.stop()
    logged = [
        line for line in worker.output().splitlines() if "ERROR" in line or "CRITICAL" in line
    ]
    assert len(logged) == 1, worker.output()
    assert "the worker ends: " in logged[0]
    assert f"no permissions to run the '{command}' command" in logged[0]
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize("command", ["xreadgroup", "xgroup|create", "xack", "ping"])
def test_a_right_without_which_a_worker_waits_is_one_line_a_minute(
    redis: Server, tmp_path: Path, command: str
) -> None:
    worker = restricted(redis, tmp_path, f"-{command}")
    missing = f"no permissions to run the '{command}' command"
    try:
        if command == "xack":  # which an idle worker does not need
            eventually("the worker is ready", worker.is_ready)
            assert in_plain(worker, "add.delay(4, 6).get(timeout=20)") == "10"
        eventually("it says so", lambda: missing in worker.output())
        redis.client.execute_command("ACL", "SETUSER", "worker", "+@all")
        assert in_plain(worker, "add.delay(4, 6).get(timeout=20)") == "10"
    finally:
        worker.stop()
    assert "Traceback" not in worker.output()
    if command != "ping":  # each attempt to connect is logged
        assert worker.output().count(missing) == 1
