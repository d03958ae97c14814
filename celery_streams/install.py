"""Everything that this package patches or registers in Celery, kombu and billiard."""

from functools import cache
from typing import Any

from celery_streams import bundles
from celery_streams.producer import groups, starmap


def install(app: Any) -> None:
    """Prepare Celery for an app of ours.

    For this app alone, its tasks `celery.map` and `celery.starmap` make one request for each job
    (producer/starmap.py), and it has the task of bundles (bundles.py). Once in the
    process, `celery.canvas.group.apply_async` sends the groups of apps that have a `submission` in
    one write (producer/groups.py); others take Celery's way.
    """
    app.on_after_finalize.connect(starmap.install, weak=False)
    app.on_after_finalize.connect(bundles.install, weak=False)
    _install_groups()


@cache
def _install_groups() -> None:
    groups.install()


@cache
def install_worker() -> None:
    """Prepare this process for a worker; called by its consumer.

    - Celery's remote control commands check their arguments (worker/command_checks.py).
    - `revoke`, `terminate`, `revoked` and `scheduled` are ours, `objgraph` is removed, and Celery's
      set of revoked ids is larger (worker/remote_control.py).
    - Log records are written without control characters (printable.py).
    """
    from celery_streams import printable
    from celery_streams.worker import command_checks, remote_control

    command_checks.install()
    remote_control.install()
    printable.install()
