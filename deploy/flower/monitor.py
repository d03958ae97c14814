"""Entry point of Flower's container, with the Celery app by which it watches the cluster."""

import os
import sys
from collections.abc import Sequence

import lengths

from cluster.app import create

VARIABLE = "FLOWER_READ_ONLY"


def run(options: Sequence[str] = ("--conf=flowerconfig.py",)) -> None:
    """Run Flower until a signal stops it; raise SystemExit, with one line, for a bad setting."""
    # Removed, because Flower itself would fail with a traceback if the value is invalid.
    read_only = os.environ.pop(VARIABLE, "") or "true"
    if read_only not in {"true", "false"}:
        sys.exit(f"error: {VARIABLE} must be true or false, not {read_only!r}")
    app = create("flower")
    try:
        queues = app.amqp.queues
    except ValueError as error:  # an invalid setting, found when celeryconfig is loaded
        sys.exit(f"error: {error}")
    # Listed by Flower before it knows any worker; it needs Queue objects.
    app.conf.update(task_queues=list(queues.values()), task_default_queue=min(queues))
    lengths.install(app)
    # Quiet: the banner would show the port inside the container.
    app.start(["--quiet", "flower", *options, f"--read_only={read_only}"])


if __name__ == "__main__":
    run()
