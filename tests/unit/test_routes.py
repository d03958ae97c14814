"""A job that no worker would run is refused before it is sent: no broker is needed to see it."""

from collections.abc import Iterator

import pytest
from celery.exceptions import QueueNotFound

from callers.client import Client
from cluster.errors import UnknownTask


@pytest.fixture
def client() -> Iterator[Client]:
    """A client of a broker that is not there."""
    with Client("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0") as client:
        yield client


def test_a_misspelt_task_is_refused_with_the_nearest_name(client: Client) -> None:
    with pytest.raises(UnknownTask, match=r"did you mean 'add.tasks.add'"):
        client.app.send_task("add.tasks.ad", (4, 6))


def test_an_unrouted_task_is_refused_with_the_names_there_are(client: Client) -> None:
    with pytest.raises(UnknownTask, match=r"there are add.tasks.add, .*mat_mul.tasks.mat_mul"):
        client.app.send_task("send_mail", ("somebody",))


def test_a_misspelt_queue_is_refused(client: Client) -> None:
    with pytest.raises(QueueNotFound, match="'ad'"):
        client.app.send_task("add.tasks.add", (4, 6), queue="ad")
