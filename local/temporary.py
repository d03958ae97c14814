"""A cluster of its own: on a port and in a folder that nobody else uses, and gone afterwards."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from local import server
from local.cluster import Cluster, running
from local.state import State


def on_a_cluster_of_its_own(job: Callable[[Cluster], int], **variables: str) -> NoReturn:
    """Run `job`, which starts what it needs, then stop the cluster and exit with its status.

    `variables` are the cluster's, over those of this process.
    """
    folder = Path(tempfile.mkdtemp(prefix="task-cluster-"))
    try:
        password_file = folder / "password"
        password_file.write_text(os.urandom(20).hex())
        password_file.chmod(0o600)
        cluster = Cluster(State(folder / "state"), server.free_port(), password_file, **variables)
        status = running(cluster, job)
    finally:
        shutil.rmtree(folder)
    sys.exit(status)


def call(cluster: Cluster, jobs: Iterable[Sequence[str]], *, draws: bool = False) -> int:
    """Run callers one after the other, and return the worst exit status: 130 if stopped."""
    callers = [cluster.call(*argv, draws=draws) for argv in jobs if not cluster.stop_requested]
    if cluster.stop_requested:
        return 130
    return max(caller.exit_status or 0 for caller in callers)
