"""The password is the file's, and no URL holds it."""

from pathlib import Path

import pytest

from cluster import password
from cluster.errors import Unreachable

PROVIDER = "credential_provider=cluster.password.PasswordFile"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A password file, named by the environment."""
    file = tmp_path / "password"
    file.write_text("s3cr3t\n")
    monkeypatch.setenv("REDIS_PASSWORD_FILE", str(file))
    return file


def test_the_file_is_read_at_each_connection(file: Path) -> None:
    provider = password.PasswordFile()
    assert provider.get_credentials() == ("s3cr3t",)

    file.write_text("changed")
    assert provider.get_credentials() == ("changed",)


def test_a_named_file_wins_over_a_password_in_the_url(file: Path) -> None:
    url = password.with_password_file("redis://:other@redis:6379/1?x=y")

    assert url == f"redis://redis:6379/1?x=y&{PROVIDER}"
    assert password.with_password_file(url) == url


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


def test_an_empty_file_is_named(file: Path) -> None:
    file.write_text("\n")

    with pytest.raises(Unreachable, match="is empty"):
        password.PasswordFile().get_credentials()
