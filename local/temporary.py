"""A temporary cluster: on an unused port and in a new folder, deleted afterwards."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from local import server
from local.cluster import Cluster, run_and_stop
from local.state import State


def run_on_temporary_cluster(program: Callable[[Cluster], int], **variables: str) -> NoReturn:
    """Run `program`, which starts what it needs; stop the cluster and exit with its status.

    `variables` override the environment for the cluster's processes.
    """
    folder = Path(tempfile.mkdtemp(prefix="task-cluster-"))
    try:
        password_file = folder / "password"
        password_file.write_text(os.urandom(20).hex())
        password_file.chmod(0o600)
        state = State(folder / "state")
        state.make_private()
        cluster = Cluster(state, server.free_port(), password_file, **variables)
        status = run_and_stop(cluster, program)
    finally:
        shutil.rmtree(folder)
    sys.exit(status)


def call(cluster: Cluster, jobs: Iterable[Sequence[str]], *, draws: bool = False) -> int:
    """Run callers in sequence; return the highest exit status, or 130 after a stop."""
    callers = [cluster.call(*argv, draws=draws) for argv in jobs if not cluster.stop_requested]
    if cluster.stop_requested:
        return 130
    return max(caller.exit_status or 0 for caller in callers)
