"""That a job runs, and where, is known within a second, without a write for each quick job."""

from time import monotonic
from typing import Any

from callers.client import Client
from tests.local.local import Local
from tests.local.store import calls
from tests.waiting import eventually


def test_a_job_that_runs_is_said_to_within_a_second(client: Client) -> None:
    job = client.submit("add.tasks.longtime_add", 4, 6, 3)
    start = monotonic()
    eventually("the job runs", lambda: job.state == "STARTED", 2.9)

    assert monotonic() - start < 2  # one, and what a busy machine takes
    assert job.info["hostname"].startswith("add@")
    assert job.info["pid"] > 0
    assert client.get(job) == 10
    assert job.state == "SUCCESS"


def test_a_quick_job_is_stored_once(local: Local, client: Client) -> None:
    client.call("add.tasks.add", 4, 6)
    backend: Any = client.app.backend
    called = calls(backend.client)
    client.map("add.tasks.add", [(i, i) for i in range(200)])

    assert called().get("set", 0) <= 205
