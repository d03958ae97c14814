"""The password is read from the file, and is in no URL."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from celery import Celery
from kombu import Connection

from cluster.connections import password, servers
from cluster.errors import Unreachable
from tests.support.repo import ROOT

PROVIDER = "credential_provider=cluster.connections.password.PasswordFile"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A password file, named by the environment."""
    file = tmp_path / "password"
    file.write_text("s3cr3t\n")
    monkeypatch.setenv("REDIS_PASSWORD_FILE", str(file))
    return file


def test_the_default_file_is_the_one_that_make_generates() -> None:
    assert password.DEFAULT == ROOT / "secrets" / "redis_password"


def test_the_file_is_read_at_each_connection(file: Path) -> None:
    provider = password.PasswordFile()
    assert provider.get_credentials() == ("s3cr3t",)

    file.write_text("changed")
    assert provider.get_credentials() == ("changed",)


def test_a_named_file_wins_over_a_password_in_the_url(file: Path) -> None:
    url = password.with_password_file("redis://:other@redis:6379/1?socket_timeout=5")

    assert url == f"redis://redis:6379/1?socket_timeout=5&{PROVIDER}"
    assert password.with_password_file(url) == url


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("redis://worker@redis/0", "worker"),
        ("redis://worker:other@redis/0", "worker"),
        ("redis://w%40rk%3Aer:x@redis/0", "w@rk:er"),
        ("rediss://worker@[::1]:6380/2", "worker"),
        ("redis+socket://worker:x@/run/redis.sock", "worker"),
        ("redis://:x@redis/0", None),
        ("redis://@redis/0", None),
    ],
)
@pytest.mark.parametrize("kind", ["Transport", "ListTransport"])
def test_the_user_of_a_url_is_kept(file: Path, url: str, user: str | None, kind: str) -> None:
    named = password.with_password_file(url)
    connection = Connection(named, transport=f"celery_streams:{kind}")
    transport: Any = connection.transport
    channel = transport.Channel.__new__(transport.Channel)
    channel.connection = transport
    broker = channel._connparams()["credential_provider"]
    store: Any = Celery(set_as_current=False, backend=servers.results(named)).backend
    results = store.connparams["credential_provider"]

    expected = (user, "s3cr3t") if user else ("s3cr3t",)
    assert broker.get_credentials() == results.get_credentials() == expected
    assert "s3cr3t" not in connection.as_uri()
    if not url.startswith("redis+"):  # Flower reads the lengths of queues by this URL
        shown = urlsplit(connection.as_uri(include_password=True))
        assert (unquote(shown.username or "") or None, shown.password) == (user, "s3cr3t")


def test_a_password_in_the_url_wins_over_the_projects_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text("own")
    monkeypatch.delenv("REDIS_PASSWORD_FILE", raising=False)
    monkeypatch.setattr(password, "DEFAULT", tmp_path / "own")

    assert password.with_password_file("redis://:other@redis/0") == "redis://:other@redis/0"
    assert PROVIDER in password.with_password_file("redis://redis/0")


@pytest.mark.usefixtures("file")
def test_urls_of_other_brokers_are_left_alone() -> None:
    assert password.with_password_file("amqp://me:pw@rabbit//") == "amqp://me:pw@rabbit//"


def test_a_missing_file_is_named(file: Path) -> None:
    file.unlink()

    with pytest.raises(Unreachable, match=f"{file}.*REDIS_PASSWORD_FILE.*No such file"):
        password.PasswordFile().get_credentials()


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\n"])
def test_an_empty_file_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    with pytest.raises(Unreachable, match="is empty"):
        password.PasswordFile().get_credentials()


@pytest.mark.parametrize("content", [b"s3cr3t \n\n", b"s3cr3t\r\n", b"\ts3cr3t"])
def test_blanks_around_the_password_are_not_its(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    assert password.PasswordFile().get_credentials() == ("s3cr3t",)


@pytest.mark.parametrize("content", [b"two\nlines", b"\xff\xfe\x00", b"a\x00b", b"\x1b[2J"])
def test_a_file_that_holds_something_else_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    with pytest.raises(Unreachable, match=r"must contain one line of text$"):
        password.PasswordFile().get_credentials()


def test_a_folder_is_not_a_password(file: Path) -> None:
    file.unlink()
    file.mkdir()

    with pytest.raises(Unreachable, match="Is a directory"):
        password.PasswordFile().get_credentials()


def test_a_password_that_a_copy_made_private_is_readable_by_the_containers(tmp_path: Path) -> None:
    """The folder is private; the users of the containers have other ids."""
    (tmp_path / "deploy").mkdir()
    (tmp_path / "secrets").mkdir()
    shutil.copy(ROOT / "deploy" / "make_secrets", tmp_path / "deploy")
    private = tmp_path / "secrets" / "redis_password"
    private.write_text("s3cr3t\n")
    private.chmod(0o600)
    subprocess.run([tmp_path / "deploy" / "make_secrets"], check=True)

    assert private.read_text() == "s3cr3t\n"
    assert private.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_what_may_never_end_is_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    endless = Path("/dev/zero") if kind == "device" else tmp_path / "pipe"
    if kind == "pipe":
        os.mkfifo(endless)
    monkeypatch.setenv("REDIS_PASSWORD_FILE", str(endless))
    with pytest.raises(Unreachable, match="is not a regular file"):
        password.PasswordFile().get_credentials()
