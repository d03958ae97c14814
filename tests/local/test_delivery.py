"""The time and order in which jobs run, and how often."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, group
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from callers.client import Client
from cluster.errors import DeadLetter
from tests.support.families import FAMILIES
from tests.support.local import Local
from tests.support.seed import shuffle
from tests.support.waiting import eventually

MISBEHAVE = "tests.local.misbehaving_tasks"


def test_priorities_are_respected_in_a_queue_that_is_full(server_only: Local) -> None:
    priorities = ["high", "normal", "low", None] * 25
    shuffle(priorities)
    with server_only.client() as client:
        jobs = []
        for priority in priorities:
            signature = client.signature("add.tasks.add", 4, 6)
            jobs.append(client.submit(signature.set(priority=priority) if priority else signature))
        with server_only.own_worker("local", "worker", "add", ADD_CONCURRENCY="1"):
            for job in jobs:
                client.get(job)
        ended = sorted(zip((job.date_done for job in jobs), priorities, strict=True))

    order = [priority or "normal" for _, priority in ended]
    assert order == ["high"] * 25 + ["normal"] * 50 + ["low"] * 25


#: Limit for the jobs that end between an urgent job's submission and its end: one that was running,
#: one that the pool already had, and one that just ended.
MAX_OVERTAKEN = 3


def ended_between(moment: datetime, last: Any, jobs: list[Any]) -> list[datetime]:
    """Return the ends of `jobs` from `moment` to the end of `last`."""
    ends = [job.date_done.replace(tzinfo=UTC) for job in jobs if job.ready()]
    return [end for end in ends if moment <= end <= last.date_done.replace(tzinfo=UTC)]


def slow(client: Client) -> Any:
    """Return the signature of a job of low priority that takes 0.2 s."""
    return client.signature("add.tasks.longtime_add", 1, 1, 0.2).set(priority="low")


def test_an_urgent_job_overtakes_those_that_wait_while_others_run(server_only: Local) -> None:
    with server_only.client() as client:
        waiting = [client.submit(slow(client)) for _ in range(20)]
        with server_only.own_worker("local", "worker", "add", ADD_CONCURRENCY="1"):
            client.get(waiting[0])
            urgent = client.submit(client.signature("add.tasks.add", 4, 6).set(priority="high"))
            submitted_at = datetime.now(UTC)
            client.get(urgent)
            for job in waiting:
                client.get(job)

            assert len(ended_between(submitted_at, urgent, waiting)) <= MAX_OVERTAKEN


@pytest.mark.parametrize("urgent", ["add.tasks.add", "add.tasks.longtime_add"])
def test_an_urgent_job_does_not_wait_for_what_a_large_fetch_released(
    server_only: Local, urgent: str
) -> None:
    with (
        server_only.client() as client,
        server_only.own_worker("local", "worker", "add", ADD_CONCURRENCY="1"),
    ):
        # Quick ones: from now on, fetches are large.
        client.map("add.tasks.add", [(i, i) for i in range(10_000)], timeout=120)
        waiting = [
            client.submit(client.signature("add.tasks.longtime_add", 1, 1, 0.1).set(priority="low"))
            for _ in range(300)
        ]
        for count in (1, 3):
            client.get(waiting[count - 1])
            signature = client.signature(urgent, 4, *([6, 0] if "long" in urgent else [6]))
            job = client.submit(signature.set(priority="high"))
            submitted_at = datetime.now(UTC)
            client.get(job)
            assert len(ended_between(submitted_at, job, waiting)) <= MAX_OVERTAKEN
        for each in waiting:
            each.revoke()


@pytest.mark.parametrize("option", ["countdown", "eta"])
def test_a_job_runs_at_its_time_and_not_before(client: Client, option: str) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=1.5)
    when: dict[str, Any] = {option: 1.5 if option == "countdown" else moment}
    job = client.submit(client.signature("add.tasks.add", 4, 6).set(**when))

    assert client.get(job) == 10
    assert job.date_done >= moment.replace(tzinfo=job.date_done.tzinfo)


def test_a_job_waits_for_its_time_longer_than_a_lease_and_runs_once(server_only: Local) -> None:
    lease = {"JOB_LEASE": "1"}
    with (
        server_only.own_worker("local", "worker", "add", **lease),
        server_only.own_worker("local", "worker", "add", **lease),
        server_only.client() as client,
    ):
        job = client.submit(client.signature("add.tasks.add", 4, 6).set(countdown=4))
        client.get(job)
        stats = client.app.control.inspect(timeout=20, limit=2).stats() or {}

    assert sum(worker["total"].get("add.tasks.add", 0) for worker in stats.values()) == 1


def test_a_thousand_jobs_that_wait_for_their_time_hold_up_no_other(server_only: Local) -> None:
    with (
        server_only.own_worker("local", "worker", "add", ADD_CONCURRENCY="4"),
        server_only.client() as client,
    ):
        later = [client.signature("add.tasks.add", i, i).set(countdown=8) for i in range(1200)]
        waiting = client.submit(group(later))
        assert client.call("add.tasks.add", 4, 6, timeout=20) == 10
        assert client.get(waiting) == [2 * i for i in range(1200)]
        eventually("the worker takes four at once again", lambda: prefetch(client) == 4)


def test_inspect_lists_delayed_jobs(client: Client) -> None:
    later = client.signature("add.tasks.add", 4, 6).set(countdown=600, priority="low")
    job = client.submit(later)
    answers = client.app.control.inspect(timeout=20, limit=len(FAMILIES)).scheduled() or {}
    listed: list[Any] = [
        each for jobs in answers.values() for each in jobs if each["request"]["id"] == job.id
    ]
    job.revoke()

    assert len(listed) == 1
    # As Celery lists a job that its worker holds.
    assert listed[0]["priority"] == 6
    request = listed[0]["request"]
    assert request.pop("hostname").startswith("add@")
    assert request == {
        "id": job.id,
        "name": "add.tasks.add",
        "type": "add.tasks.add",
        "args": [4, 6],
        "kwargs": {},
        "time_start": None,
        "acknowledged": False,
        "worker_pid": None,
        "delivery_info": {
            "exchange": "",
            "routing_key": "add",
            "priority": 6,
            "redelivered": False,
        },
    }
    assert datetime.fromisoformat(listed[0]["eta"]) > datetime.now(UTC) + timedelta(minutes=9)


def prefetch(client: Client) -> int:
    """Return the only worker's prefetch count."""
    (stats,) = (client.app.control.inspect(timeout=20, limit=1).stats() or {}).values()
    count: int = stats["prefetch_count"]
    return count


def test_an_invalid_time_limit_is_the_callers_error(client: Client) -> None:
    limit: Any = "x"
    with Celery(broker=client.app.conf.broker_read_url, set_as_current=False) as stranger:
        job = stranger.send_task("add.tasks.add", (4, 6), queue="add", time_limit=limit)

    with pytest.raises(DeadLetter, match="'timelimit' is not a hard and a soft limit"):
        client.get(client.app.AsyncResult(job.id))


def test_an_error_that_can_pass_is_tried_again(client: Client) -> None:
    job = client.submit("add.tasks.unsteady_add", 4, 6, failures=2)

    assert client.get(job) == 10


def test_an_error_that_does_not_pass_is_the_callers_after_four_tries(client: Client) -> None:
    with pytest.raises(ConnectionError, match="simulated failure of try 4"):
        client.call("add.tasks.unsteady_add", 4, 6, failures=99)


def test_a_rate_limit_of_the_configuration_holds(client: Client) -> None:
    jobs = [client.submit("add.tasks.unsteady_add", i, i, failures=0) for i in range(15)]
    for job in jobs:
        client.get(job)
    ended = sorted(job.date_done for job in jobs)

    # 10 a second: 1.4 s between the first and the last of 15.
    assert (ended[-1] - ended[0]).total_seconds() > 1


@pytest.mark.parametrize(
    ("task", "error"),
    [("too_slow_softly", SoftTimeLimitExceeded), ("too_slow", TimeLimitExceeded)],
)
def test_a_time_limit_of_the_configuration_holds_for_its_task(
    server_only: Local, task: str, error: type[Exception]
) -> None:
    with (
        server_only.own_worker("tests.local.misbehaving_worker"),
        server_only.client() as client,
    ):
        job = client.app.send_task(f"{MISBEHAVE}.{task}", queue="add")
        with pytest.raises(error):
            client.get(job, 20)


@pytest.mark.parametrize(
    ("option", "error"),
    [("soft_time_limit", SoftTimeLimitExceeded), ("time_limit", TimeLimitExceeded)],
)
def test_a_time_limit_of_the_job_itself_holds(
    client: Client, option: str, error: type[Exception]
) -> None:
    slow: Any = client.signature("add.tasks.longtime_add", 4, 6, seconds=50)
    with pytest.raises(error):
        client.call(slow.set(**{option: 1}), timeout=20)


def test_a_rate_limit_holds_up_no_other_task_and_is_kept(server_only: Local) -> None:
    with server_only.client() as client:
        limited: list[Any] = [client.submit("add.tasks.unsteady_add", i, i, 0) for i in range(100)]
        other: Any = client.submit("add.tasks.longtime_add", 4, 6, 0)
        with server_only.own_worker("local", "worker", "add", ADD_CONCURRENCY="2"):
            assert client.get(other) == 10
            assert [client.get(job, timeout=90) for job in limited] == [2 * i for i in range(100)]
        ended = sorted(job.date_done for job in limited)

    # At ten a second, with the first at once; Celery's timers run one a second.
    assert 9 <= (ended[-1] - ended[0]).total_seconds() < 60
    assert sum(moment < other.date_done for moment in ended) < 50
