"""The program of Flower's container, and the Celery app it watches the cluster with."""

import os
import sys
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import kombu

from cluster.app import create
from cluster.password import PasswordFile

VARIABLE = "FLOWER_READ_ONLY"


class Connection(kombu.Connection):
    """A connection whose URL holds the password where Flower asks for it.

    Flower asks Redis for the queues' lengths by itself, with what it finds in this URL.
    """

    def as_uri(self, include_password: bool = False, *rest: Any, **more: Any) -> str:  # noqa: FBT002 - kombu's
        """Return the broker's URL, with the password of the password file only if asked to."""
        uri = str(super().as_uri(include_password, *rest, **more))
        parts = urlsplit(uri)
        if not include_password or parts.scheme not in {"redis", "rediss"}:
            return uri
        (password,) = PasswordFile().get_credentials()
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f":{quote(password, safe='')}@{host}"))


def run() -> None:
    """Run Flower until a signal stops it; raises SystemExit, with one line, for a wrong setting."""
    # Taken away: Flower would read it by itself, and end with a traceback where it is wrong.
    read_only = os.environ.pop(VARIABLE, "true")
    if read_only not in {"true", "false"}:
        sys.exit(f"error: {VARIABLE} must be true or false, not {read_only!r}")
    app = create("flower")
    try:
        queues = app.amqp.queues
    except ValueError as error:  # a setting that is wrong, found as celeryconfig is loaded
        sys.exit(f"error: {error}")
    app.amqp.Connection = Connection
    # What Flower lists while it knows no worker; it takes no queues but objects.
    app.conf.update(task_queues=list(queues.values()), task_default_queue=min(queues))
    # Quiet: the banner tells the port inside the container.
    app.start(["--quiet", "flower", "--conf=flowerconfig.py", f"--read_only={read_only}"])


if __name__ == "__main__":
    run()
