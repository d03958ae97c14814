"""The lengths of queues on Flower's page, in its API and metrics, with and without workers."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from callers.client import Client
from local.server import ROOT, free_port
from tests.support.local import Local
from tests.support.waiting import eventually

FOLDER = ROOT / "deploy" / "flower"
RUN = "import sys, monitor; monitor.run(sys.argv[1:])"


class Flower:
    """Flower, as its container runs it, without the volume."""

    def __init__(self, local: Local, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "flower.log"
        options = ("--address=127.0.0.1", f"--port={self.port}", "--basic_auth=flower:secret")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, *options],
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{FOLDER}:{ROOT}",
                    "CELERY_BROKER_URL": local.url,
                    "CELERY_RESULT_BACKEND": local.url,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> str:
        """Return the page at a path."""
        login = b64encode(b"flower:secret").decode()
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Basic {login}"})
            answer = connection.getresponse()
            text = answer.read().decode()
        assert answer.status == 200, f"{path}: {answer.status} {text}"
        return text

    def is_up(self) -> bool:
        """Return True when it answers."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/healthcheck") == "OK"
        except OSError:
            return False

    def length(self, queue: str) -> dict[str, int]:
        """Return a queue's lengths from the API."""
        answer = json.loads(self.get("/api/queues/length"))["active_queues"]
        found: dict[str, int] = {each.pop("name"): each for each in answer}[queue]
        return found

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the queues."""
        lines = [line.rsplit(" ", 1) for line in self.get("/metrics").splitlines()]
        return {name: float(value) for name, value in lines if name.startswith("flower_queue_")}

    def row(self, queue: str) -> list[str]:
        """Return the cells of a queue's row on the page of the broker."""
        _, _, row = self.get("/broker").partition(f'<tr id="{queue}">')
        return [
            cell.split("</td>")[0].split(">", 1)[1]
            for cell in row.partition("</tr>")[0].split("<td")[1:]
        ]

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def flower(server_only: Local, tmp_path: Path) -> Iterator[Flower]:
    """Flower, beside a server without workers."""
    flower = Flower(server_only, tmp_path)
    try:
        eventually("Flower answers", flower.is_up, 60)
        yield flower
    finally:
        flower.stop()


def metrics_of(queue: str, **states: int) -> dict[str, float]:
    return {
        f'flower_queue_jobs{{queue="{queue}",state="{state}"}}': value
        for state, value in states.items()
    }


def test_lengths_without_any_worker(server_only: Local, flower: Flower) -> None:
    with server_only.client() as client:
        submit(client)
    with redis.Redis(port=server_only.port, password=server_only.password.read_text()) as store:
        store.xadd("add:dead", {"message": "{}", "reason": "a test's"})
        store.lpush("add", "what a stock program pushed")

    expected = {"waiting": 173, "delayed": 3, "running": 0, "dead": 1}
    assert flower.length("add") == {"messages": 173, **expected}
    assert flower.length("factorial")["messages"] == 0
    assert flower.row("add") == ["add", "173", "3", "0", "1"]
    assert flower.metrics().items() >= metrics_of("add", **expected).items()
    assert flower.metrics().items() >= metrics_of("mat_mul", waiting=0, dead=0).items()


def test_lengths_while_jobs_run(server_only: Local, flower: Flower) -> None:
    with server_only.client() as client, server_only.own_worker("add.worker", ADD_CONCURRENCY="2"):
        for priority in ("high", "normal", "low"):
            slow = client.signature("add.tasks.longtime_add", 1, 2, 20)
            for _ in range(4):
                client.submit(slow.clone().set(priority=priority))

        eventually("two jobs run", lambda: flower.length("add")["running"] == 2, 60)
        assert flower.row("add") == ["add", "10", "0", "2", "0"]
        # Flower knows the worker of one queue, and shows the others, too.
        assert flower.row("mat_mul") == ["mat_mul", "0", "0", "0", "0"]


def test_no_length_is_shown_without_a_server(server_only: Local, flower: Flower) -> None:
    assert flower.metrics()
    server_only.stop()

    assert flower.metrics() == {}
    assert "flower_worker_online" in flower.get("/metrics")
    assert "The broker does not answer." in flower.get("/broker")


@pytest.mark.parametrize("transport", ["ListTransport", "Transport"])
def test_kombus_own_lists_are_asked_for_as_ever(
    monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    lengths = import_module("lengths")
    monkeypatch.setattr(lengths, "Gauge", lambda *_: None)  # there may be only one
    replaced = [(lengths.BaseHandler, "get_broker"), (lengths.Metrics, "get")]
    replaced += [(lengths.BaseHandler, "get_active_queue_names"), (lengths.BrokerView, "render")]
    for view, name in replaced:  # restored in the end
        monkeypatch.setattr(view, name, getattr(view, name))
    before = [getattr(*each) for each in replaced]
    app: Any = Celery(broker="redis://", set_as_current=False)
    app.conf.broker_transport = f"celery_streams:{transport}"
    lengths.install(app)
    after = [getattr(*each) for each in replaced]
    assert [now is then for now, then in zip(after, before, strict=True)] == [
        transport == "ListTransport"
    ] * len(replaced)


def submit(client: Client) -> None:
    """Submit 172 jobs for now and three for later."""
    slow = client.signature("add.tasks.longtime_add", 1, 2)
    for number in range(172):
        client.submit(slow.clone().set(priority=("high", "normal", "low")[number % 3]))
    for _ in range(3):
        client.submit(slow.clone().set(countdown=600))
