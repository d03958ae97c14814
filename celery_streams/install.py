"""Everything that this package patches or registers in Celery, kombu and billiard."""

from functools import cache
from typing import Any

from celery_streams.producer import groups, starmap


def install(app: Any) -> None:
    """Prepare Celery for an app.

    Once in a process:
    - `celery.canvas.group.apply_async` sends the groups of apps that have a `submission` in one
      write (producer/groups.py). Other apps' groups take Celery's own.

    For this app alone:
    - its tasks `celery.map` and `celery.starmap` make one request for each job
      (producer/starmap.py).

    A worker's consumer adds, once in its process (worker/consumer.py):
    - checks before Celery's remote control commands, `revoke`, `revoked` and `scheduled` of our
      own, and no `objgraph` (worker/remote_control.py);
    - log records without control characters (printable.py);
    - a shorter wait of pool processes that end (worker/pool.py).
    """
    _install_groups()
    app.on_after_finalize.connect(starmap.install, weak=False)


@cache
def _install_groups() -> None:
    groups.install()
