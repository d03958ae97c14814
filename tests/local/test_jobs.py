"""Every task of every family, on real workers and a real server."""

from typing import Any

import pytest
from celery.result import AsyncResult

from callers.client import Client
from cluster.errors import JobTimeout, Unreachable
from cluster.examples import BadExample, Example
from tests.support.families import BAD_JOBS, JOBS, check
from tests.support.local import Local
from tests.support.waiting import eventually


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_a_job_gives_its_value(client: Client, job: Example) -> None:
    check(job, client.call(job.task, *job.args, **job.kwargs))


@pytest.mark.parametrize("job", BAD_JOBS, ids=str)
def test_a_bad_job_gives_its_error(client: Client, job: BadExample) -> None:
    with pytest.raises(job.error) as caught:  # by Celery: the client would refuse most of them
        client.get(client.app.send_task(job.task, job.args, job.kwargs))

    assert job.words in str(caught.value)


def test_a_thousand_jobs_come_back_in_order(client: Client) -> None:
    sums = client.map("add.tasks.add", [(i, i) for i in range(1000)], timeout=60)

    assert sums == [2 * i for i in range(1000)]


def test_map_gives_the_error_of_a_job_in_its_place(client: Client) -> None:
    rows: list[Any] = [(1, 1), ("two", 2), (10**400, 0.5), (3, 3)]
    first, by_contract, by_worker, last = client.map("add.tasks.add", rows)

    assert (first, last) == (2, 6)
    assert isinstance(by_contract, TypeError)
    assert str(by_contract) == "x must be a number, not 'two'"
    assert isinstance(by_worker, OverflowError)


def test_map_of_nothing_is_nothing(client: Client) -> None:
    assert client.map("add.tasks.add", []) == []


def test_a_submitted_job_can_be_fetched_by_its_id(client: Client) -> None:
    submitted = client.submit("add.tasks.add", 4, 6)

    assert AsyncResult(submitted.id, app=client.app).get(timeout=30) == 10


def test_a_job_can_be_sent_with_nothing_but_celery(client: Client) -> None:
    assert client.app.send_task("add.tasks.add", (4, 6)).get(timeout=30) == 10


def test_the_error_of_a_late_job_says_where_it_still_runs(client: Client) -> None:
    with pytest.raises(JobTimeout, match=r"within 4 s: job \S+ still runs on add@") as caught:
        client.call("add.tasks.longtime_add", 4, 6, 8, timeout=4)

    job_id = str(caught.value).split("job ")[1].split(" ")[0]
    assert AsyncResult(job_id, app=client.app).get(timeout=30) == 10


def test_jobs_of_one_worker_run_side_by_side(client: Client) -> None:
    jobs = [client.submit("add.tasks.longtime_add", i, i, 60) for i in range(4)]
    eventually("all four run", lambda: all(job.state == "STARTED" for job in jobs))
    for job in jobs:
        job.revoke(terminate=True)
    eventually("none runs", lambda: all(job.state == "REVOKED" for job in jobs))


def test_a_broker_whose_memory_is_full_refuses_in_one_line(server_only: Local) -> None:
    with server_only.client() as client:
        store: Any = client.app.backend
        store.client.config_set("maxmemory", 1)
        with pytest.raises(Unreachable, match=r"accepts no more jobs: its memory is full$"):
            client.submit("add.tasks.add", 4, 6)
        with pytest.raises(Unreachable, match=r"accepts no more jobs: its memory is full$"):
            client.map("add.tasks.add", [(4, 6)] * 3, timeout=5)
