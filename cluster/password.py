"""Where a server's password comes from: a file, for Redis named by REDIS_PASSWORD_FILE.

The file is read when a connection is made, so that no URL, setting, log line or
process listing holds the password, and a changed one is used at the next connection.
"""

import os
from pathlib import Path

from redis.credentials import CredentialProvider

from celery_streams import address
from cluster.errors import Unreachable

VARIABLE = "REDIS_PASSWORD_FILE"
#: Where `make` leaves the passwords it made, seen from the project's root.
SECRETS = Path(__file__).resolve().parent.parent / "secrets"
DEFAULT = SECRETS / "redis_password"


def path(variable: str, default: Path) -> Path | None:
    """Return the password file to use, or None where there is none."""
    named = os.environ.get(variable)
    if named:
        return Path(named)
    return default if default.exists() else None


def read(server: str, variable: str, default: Path) -> str:
    """Return a server's password: the one line of a file, without blanks around it.

    Raises Unreachable if the file can't be read, is empty or holds anything else.
    """
    return line(path(variable, default) or default, server, variable)


def line(file: Path, server: str, variable: str) -> str:
    """Return the one line of a password file. Raises Unreachable as `read` does."""
    if file.is_fifo() or file.is_char_device():  # it may never end
        raise Unreachable(f"the {server} password file {file} ({variable}) is no file")
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
            f"the {server} password file {file} ({variable}) must hold one line of text"
        )
    return password


class PasswordFile(CredentialProvider):
    """Gives redis-py the password that stands in the file."""

    def get_credentials(self) -> tuple[str]:
        """Return the password. Raises Unreachable if the file can't be read or is empty."""
        return (read("Redis", VARIABLE, DEFAULT),)


def with_password_file(url: str) -> str:
    """Return `url` such that kombu and Celery take the password from the file.

    A file named by REDIS_PASSWORD_FILE wins over a password in the URL, which wins
    over the project's own file; the user's name stays. URLs of other servers than Redis are
    left as they are: RabbitMQ's password is the transport's own matter (cluster.rabbitmq).
    """
    if url.partition("://")[0] not in address.SCHEMES or path(VARIABLE, DEFAULT) is None:
        return url
    server = address.read(url)
    if server.has_password and not os.environ.get(VARIABLE):
        return url
    return server.with_provider(f"{__name__}.{PasswordFile.__name__}").url
