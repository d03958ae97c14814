"""The program of Flower's container, and the Celery app it watches the cluster with."""

import os
import sys
from collections.abc import Sequence

import lengths

from cluster.app import create

VARIABLE = "FLOWER_READ_ONLY"


def run(options: Sequence[str] = ("--conf=flowerconfig.py",)) -> None:
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
    # What Flower lists while it knows no worker; it takes no queues but objects.
    app.conf.update(task_queues=list(queues.values()), task_default_queue=min(queues))
    lengths.install(app)
    # Quiet: the banner tells the port inside the container.
    app.start(["--quiet", "flower", *options, f"--read_only={read_only}"])


if __name__ == "__main__":
    run()
