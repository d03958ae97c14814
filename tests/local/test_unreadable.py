"""Messages that a worker must not, or can't, read: answered, and nothing of them is run."""

from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from callers.client import Client
from cluster.errors import DeadLetter


class Malicious:
    """A value whose unpickling leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_pickled_message_is_answered_with_an_error_and_runs_nothing(
    client: Client, tmp_path: Path
) -> None:
    trace = tmp_path / "unpickled"
    stranger = Celery(broker=client.app.conf.broker_read_url, set_as_current=False)
    stranger.conf.update(task_serializer="pickle", accept_content=["pickle"])
    job = stranger.send_task("add.tasks.add", (Malicious(trace), 6), queue="add")

    with pytest.raises(DeadLetter, match="untrusted content of type pickle"):
        client.get(client.app.AsyncResult(job.id))
    assert not trace.exists()
    assert client.call("add.tasks.add", 4, 6) == 10


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"{not json", "application/json", "Expecting property name"),
        (b"\xff\xfe", "application/json", "decode"),
        (b"x", "application/x-unheard-of", "untrusted content"),
        (b'[[{"__type__": "bogus", "__value__": 1}], {}, {}]', "application/json", "bogus"),
    ],
)
def test_a_message_that_cannot_be_read_is_answered_with_an_error(
    client: Client, body: bytes, content_type: str, words: str
) -> None:
    job = client.app.AsyncResult(f"unreadable-{abs(hash(body))}")
    headers = {"task": "add.tasks.add", "id": job.id, "lang": "py"}
    with client.app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish(
            body,
            routing_key="add",
            exchange="add",
            content_type=content_type,
            content_encoding="utf-8",
            headers=headers,
        )

    with pytest.raises(DeadLetter, match=words):
        client.get(job)


def test_an_array_is_refused_by_a_task_that_wants_numbers(client: Client) -> None:
    matrix = client.signature("mat_mul.tasks.mat_mul", 2, 2, seed=7)
    with pytest.raises(TypeError, match="x must be a number"):
        client.call(matrix | client.signature("add.tasks.add", 1))
