"""Passwords of servers, read from files; REDIS_PASSWORD_FILE names the one for Redis.

The file is read for each new connection. The password appears in no URL, setting, log line or
process listing, and a changed password is used from the next connection on.
"""

import os
from pathlib import Path

from redis.credentials import CredentialProvider

from celery_streams import address
from cluster.errors import Unreachable

VARIABLE = "REDIS_PASSWORD_FILE"
#: Folder of the passwords that `make` generates.
SECRETS = Path(__file__).resolve().parents[2] / "secrets"
DEFAULT = SECRETS / "redis_password"


def path(variable: str, default: Path) -> Path | None:
    """Return the file that `variable` names, or `default` if that exists, or else None."""
    named = os.environ.get(variable)
    if named:
        return Path(named)
    return default if default.exists() else None


def read(server: str, variable: str, default: Path) -> str:
    """Return a server's password: the only line of its file, stripped.

    Raise Unreachable if the file can't be read, is empty or has more than one line.
    """
    return line(path(variable, default) or default, server, variable)


def line(file: Path, server: str, variable: str) -> str:
    """Return the only line of a password file. Raise Unreachable as `read` does."""
    if file.is_fifo() or file.is_char_device():  # reading it may never end
        raise Unreachable(f"the {server} password file {file} ({variable}) is not a regular file")
    try:
        password = file.read_bytes().decode(errors="surrogateescape").strip()
    except OSError as error:
        raise Unreachable(
            f"cannot read the {server} password from {file} ({variable}): {error.strerror}"
        ) from None
    if not password:
        raise Unreachable(f"the {server} password file {file} ({variable}) is empty")
    if not password.isprintable():
        raise Unreachable(
            f"the {server} password file {file} ({variable}) must contain one line of text"
        )
    return password


class PasswordFile(CredentialProvider):
    """Provides redis-py with the password from the file."""

    def get_credentials(self) -> tuple[str]:
        """Return the password. Raise Unreachable as `read` does."""
        return (read("Redis", VARIABLE, DEFAULT),)


def with_password_file(url: str) -> str:
    """Return `url`, changed so that kombu and Celery read the password from the file.

    A file named by REDIS_PASSWORD_FILE takes precedence over a password in the URL, and that
    over the project's own file; the user name is kept. The URL of any other server is returned
    unchanged: the transport reads RabbitMQ's password (cluster.connections.rabbitmq).
    """
    if url.partition("://")[0] not in address.SCHEMES or path(VARIABLE, DEFAULT) is None:
        return url
    server = address.read(url)
    if server.has_password and not os.environ.get(VARIABLE):
        return url
    return server.with_provider(f"{__name__}.{PasswordFile.__name__}").url
