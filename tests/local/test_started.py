"""STARTED is stored for jobs that run for a while, and for no quick one."""

from typing import Any

from callers.client import Client
from tests.support.local import Local
from tests.support.store import calls
from tests.support.waiting import eventually


def test_a_job_is_started_while_it_runs(client: Client) -> None:
    job = client.submit("add.tasks.longtime_add", 4, 6, 5)
    eventually("the job runs", lambda: job.state != "PENDING")

    assert job.state == "STARTED"
    assert job.info["hostname"].startswith("add@")
    assert job.info["pid"] > 0
    assert client.get(job) == 10
    assert job.state == "SUCCESS"


def test_a_quick_job_is_stored_once(local: Local, client: Client) -> None:
    client.call("add.tasks.add", 4, 6)
    backend: Any = client.app.backend
    called = calls(backend.client)
    client.map("add.tasks.add", [(i, i) for i in range(200)])

    # 200 without STARTED, 400 with it; a few may become STARTED on a busy machine.
    assert called().get("set", 0) < 300
