"""A result store without workers: a server, programs that wait, and results to store."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.task import Context
from redis import Redis
from redis.exceptions import RedisError

from local import server
from tests.support.waiting import eventually

SECRET = "secret"
#: Commands of `calls` and of connecting, which it does not count.
OWN = ("config|resetstat", "info", "hello", "auth", "client|setinfo")


class Store:
    """A Redis server without workers."""

    def __init__(self, folder: Path) -> None:
        self.port = server.free_port()
        self._config = (
            f'port {self.port}\nbind 127.0.0.1\ndir "{folder}"\n'
            f"requirepass {SECRET}\nappendonly yes\n"
        )
        self.process: subprocess.Popen[str] | None = None
        self._worker: Celery[Any] | None = None
        self.start()

    def start(self) -> None:
        """Start the server; its data is persistent."""
        self.process = subprocess.Popen(
            [server.binary(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert self.process.stdin
        with self.process.stdin as pipe:
            pipe.write(self._config)
        eventually("the server answers", self._answers)

    def _answers(self) -> bool:
        with suppress(RedisError), self.redis() as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        """Stop the server."""
        assert self.process
        self.process.terminate()
        self.process.wait(20)

    def url(self, port: int | None = None) -> str:
        """Return the server's address, or that of a proxy in front of it."""
        return f"redis://:{SECRET}@127.0.0.1:{port or self.port}/0"

    def redis(self) -> Any:
        """Return a plain client."""
        return Redis(port=self.port, password=SECRET)

    def program(self, port: int | None = None, **settings: Any) -> "Celery[Any]":
        """Return a plain Celery program that uses the result backend."""
        url = self.url(port)
        app: Celery[Any] = Celery(
            broker=self.url(),
            backend=f"celery_streams:RedisBackend+{url}",
            set_as_current=False,
        )
        # If another test has loaded celeryconfig, the schemes are its own.
        app.conf.update(broker_transport="kombu.transport.redis:Transport", **settings)
        return app

    def ends(
        self, job: Any, value: Any = None, state: str = "SUCCESS", sender: str | None = None
    ) -> None:
        """Store the state of a job, as a worker does."""
        if self._worker is None:
            self._worker = self.program()
        request = Context(reply_to=sender) if sender else None
        self._worker.backend.store_result(getattr(job, "id", job), value, state, request=request)


def calls(client: Any) -> Callable[[], dict[str, int]]:
    """Return a function that returns the number of calls of each command since now."""
    client.config_resetstat()

    def called() -> dict[str, int]:
        stats = client.info("commandstats")
        counts = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
        return {name: count for name, count in counts.items() if name not in OWN}

    return called


@contextmanager
def soon(function: Callable[..., object], *args: Any, seconds: float = 0.2) -> Iterator[None]:
    """Call a function in a thread, `seconds` after the block begins."""
    timer = threading.Timer(seconds, function, args)
    timer.start()
    try:
        yield
    finally:
        timer.join()


class Proxy:
    """A proxy of the server that can go silent: it then accepts data without passing it on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passes: list[threading.Event] = []
        self._sockets: list[socket.socket] = []
        self.lets_new_ones_pass = True
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self, *, new_ones_too: bool = False) -> None:
        """Stop the present connections, and with `new_ones_too` also new ones."""
        self.lets_new_ones_pass = not new_ones_too
        for passes in self._passes:
            passes.clear()

    def close(self) -> None:
        """Close everything."""
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                passes = threading.Event()
                if self.lets_new_ones_pass:
                    passes.set()
                self._passes.append(passes)
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(
                        target=self._pass_on, args=(source, sink, passes), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, passes: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if passes.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
