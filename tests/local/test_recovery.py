"""A killed worker's jobs run elsewhere; a slow job stays with its live worker."""

import os
import signal
from pathlib import Path

from callers.client import Client
from tests.support.local import Local
from tests.support.waiting import eventually

LEASE = 2


def holder(client: Client, local: Local, job_id: str) -> int:
    """Return the process id of the worker that runs a job."""
    active = client.app.control.inspect(timeout=1).active() or {}
    names = [name for name, jobs in active.items() if any(job["id"] == job_id for job in jobs)]
    return int(names[0].rsplit(".", 1)[1]) if names else 0


def test_a_killed_workers_job_runs_elsewhere_within_the_lease(tmp_path: Path) -> None:
    local = Local(tmp_path, ADD_REPLICAS="2", JOB_LEASE=str(LEASE))
    try:
        local.wait_until_ready()
        with local.client() as client:
            job = client.submit("add.tasks.longtime_add", 4, 6, 2)
            pid = eventually("it runs", lambda: holder(client, local, job.id))
            os.kill(pid, signal.SIGKILL)

            # The job takes 2 s. The default lease alone is 15 s.
            assert job.get(timeout=14) == 10
    finally:
        local.stop()


def test_a_job_longer_than_the_lease_runs_once(tmp_path: Path) -> None:
    local = Local(tmp_path, ADD_REPLICAS="2", JOB_LEASE=str(LEASE))
    try:
        local.wait_until_ready()
        with local.client() as client:
            assert client.call("add.tasks.longtime_add", 4, 6, 3 * LEASE) == 10
        assert local.output().count(" received") == 1
    finally:
        local.stop()
