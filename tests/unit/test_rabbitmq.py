"""RabbitMQ's password is read from the file, and its queues lose no message."""

from pathlib import Path

import pytest

from cluster.connections import rabbitmq
from cluster.errors import Unreachable


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's own password file; none is named by the environment."""
    file = tmp_path / "own"
    file.write_text("own\n")
    monkeypatch.delenv("RABBITMQ_PASSWORD_FILE", raising=False)
    monkeypatch.setattr(rabbitmq, "DEFAULT", file)
    return file


@pytest.fixture
def named_file(own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A password file, named by the environment."""
    file = tmp_path / "named"
    file.write_text("named\n")
    monkeypatch.setenv("RABBITMQ_PASSWORD_FILE", str(file))
    return file


def connection_to(url: str) -> rabbitmq.Connection:
    return rabbitmq.Connection(url, transport=rabbitmq.transport(url))


def used(url: str) -> str:
    """Return the user and the password of a connection to a URL, and of its clone."""
    connection = connection_to(url)
    texts = {c.as_uri(include_password=True) for c in (connection, connection.clone())}
    (text,) = texts
    return text.removeprefix("amqp://").split("@")[0]


@pytest.mark.usefixtures("named_file")
def test_a_named_file_wins_over_a_password_in_the_url() -> None:
    assert used("amqp://me:other@host/v") == "me:named"


@pytest.mark.usefixtures("own_file")
def test_a_password_in_the_url_wins_over_the_projects_own_file() -> None:
    assert used("amqp://me:other@host/v") == "me:other"
    assert used("amqp://me@host/v") == "me:own"


@pytest.mark.usefixtures("own_file")
def test_a_url_without_a_user_is_that_of_guest() -> None:
    assert used("amqp://host/v") == "guest:guest"


def test_the_file_is_read_at_each_connection(own_file: Path) -> None:
    connection = connection_to("amqp://me@host/v")
    own_file.write_text("changed")

    assert "changed" in connection.as_uri(include_password=True)
    assert "changed" not in connection.as_uri()
    assert "changed" not in repr(connection.info())


def test_a_missing_file_is_named(named_file: Path) -> None:
    named_file.unlink()

    with pytest.raises(Unreachable, match=f"{named_file}.*RABBITMQ_PASSWORD_FILE.*No such file"):
        rabbitmq.read_password()


def test_an_empty_file_is_named(named_file: Path) -> None:
    named_file.write_text("\n")

    with pytest.raises(Unreachable, match="is empty"):
        rabbitmq.read_password()


@pytest.mark.parametrize(
    ("url", "is_amqp"),
    [("amqp://h", True), ("amqps://h", True), ("redis://h", False), ("amqp.x://h", False)],
)
def test_a_url_names_the_broker(url: str, *, is_amqp: bool) -> None:
    assert rabbitmq.is_url(url) is is_amqp


def test_the_settings_add_to_a_queue_and_take_nothing_away() -> None:
    queues = {"add": {"exchange": "add", "routing_key": "add", "more": 1}}
    queue = rabbitmq.settings(queues)["task_queues"]["add"]

    assert queue.items() > queues["add"].items()
    assert queue["exchange_type"] == "topic"
