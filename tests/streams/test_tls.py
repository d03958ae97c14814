"""The transport and the result store over TLS: `rediss://`."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from kombu import Connection

from local.server import free_port
from tests.support.collector import Worker, publish
from tests.support.local import Local


class Proxy(threading.Thread):
    """A proxy that adds TLS to the server, which has none built in."""

    def __init__(self, port: int, server_port: int, certificate: Path) -> None:
        super().__init__(daemon=True)
        self.port = port
        self._server_port = server_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.listens = threading.Event()

    def run(self) -> None:
        """Serve until it is stopped."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context)
        self.listens.set()
        await self._stopped.wait()
        server.close()

    def stop(self) -> None:
        """Stop serving, and close all connections."""
        assert self._loop
        self._loop.call_soon_threadsafe(self._stopped.set)
        self.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_connection("127.0.0.1", self._server_port)
        await asyncio.gather(_copy(reader, server[1]), _copy(server[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
def url(server: Local, store: Any, tmp_path: Path) -> Iterator[str]:
    """The URL of the server over TLS, whose certificate is checked."""
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(certificate), "-out", str(tmp_path / "public.pem")),
        ],
        check=True,
        capture_output=True,
    )
    with certificate.open("a") as file:
        file.write((tmp_path / "public.pem").read_text())
    proxy = Proxy(free_port(), server.port, certificate)
    proxy.start()
    assert proxy.listens.wait(10)
    password = quote(server.password.read_text(), safe="")
    options = f"ssl_cert_reqs=required&ssl_ca_certs={quote(str(tmp_path / 'public.pem'))}"
    yield f"rediss://:{password}@localhost:{proxy.port}/0?{options}"
    proxy.stop()


def test_messages_travel_over_tls(url: str) -> None:
    with Connection(url, transport="celery_streams:Transport") as connection:
        worker = Worker(connection)
        publish(connection, *range(5))
        assert worker.wait_for(5) == [*range(5)]
        for message in worker.messages:
            message.ack()


def test_results_travel_over_tls(url: str) -> None:
    app = Celery(backend=f"celery_streams:RedisBackend+{url}", set_as_current=False)
    backend: Any = app.backend
    backend.store_result("an id", 10, "SUCCESS")

    assert app.AsyncResult("an id").get(timeout=30) == 10
    backend.result_consumer.stop()
    backend.client.connection_pool.disconnect()
