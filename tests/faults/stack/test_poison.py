"""Jobs that kill their workers, and malformed messages."""

import random

import pytest
import redis

from callers.client import Client
from tests.faults import malformed
from tests.faults.account import Outcome
from tests.faults.dead import dead_letters
from tests.faults.report import Report
from tests.faults.runs import Runs
from tests.faults.stack.conftest import MakeLoad
from tests.support.stack import Stack
from tests.support.waiting import eventually

MALFORMED = 1000
#: Limit for the runs of a job before it is dead-lettered; Celery retries one of a lost process.
MAX_RUNS = 4


@pytest.mark.parametrize(
    ("task", "what"),
    [
        ("kill_the_process", "SIGKILL to its own process"),
        ("kill_the_worker", "SIGKILL to its worker"),
        ("allocate", "allocating past the memory limit"),
    ],
)
def test_a_job_that_kills_its_worker(
    client: Client,
    server: "redis.Redis",
    load: MakeLoad,
    runs: Runs,
    report: Report,
    task: str,
    what: str,
) -> None:
    with load() as jobs:
        result = client.app.send_task(f"tests.faults.tasks.{task}", queue="add")
        with pytest.raises(Exception) as error:  # noqa: PT011 - it differs for each task
            client.get(result, 90)
        account = jobs.account()
    report.add(f"a job that kills its worker each time: {what}", account)

    account.check(Outcome.FAILED)  # others may be hit three times, too
    assert not isinstance(error.value, TimeoutError), error.value
    assert 1 < len(runs.of(result.id)) <= MAX_RUNS
    letters = eventually(
        "the dead letter",
        lambda: [letter for letter in dead_letters(server, "add") if letter.job_id == result.id],
    )
    assert len(letters) == 1


def test_malformed_messages_among_good_ones(
    stack: Stack,
    client: Client,
    server: "redis.Redis",
    load: MakeLoad,
    chance: random.Random,
    report: Report,
    has_lists: bool,
) -> None:
    workers = stack.containers("add")
    before = [started(stack, worker) for worker in workers]
    put = [*malformed.messages(chance, MALFORMED)]
    chance.shuffle(put)
    with load() as jobs:
        for i, message in enumerate(put):
            malformed.put(server, "add", message.payload, in_stream=bool(i % 2) and not has_lists)
        account = jobs.account()
    report.add(f"{MALFORMED:,} malformed messages among good ones", account)

    account.check()
    assert [started(stack, worker) for worker in workers] == before, "a worker has ended"
    eventually("all are answered or dead", lambda: not unanswered(client, server, put), 60)


def started(stack: Stack, container: str) -> object:
    """Return the time of a container's last start."""
    return stack.inspect(container)["State"]["StartedAt"]


def unanswered(
    client: Client, server: "redis.Redis", put: list[malformed.Malformed]
) -> list[malformed.Malformed]:
    """Return the messages that are neither a dead letter nor a job that has ended."""
    letters = dead_letters(server, "add")
    dead = {letter.message for letter in letters} | {letter.job_id for letter in letters}
    return [
        message
        for message in put
        if message.payload not in dead
        and message.job_id not in dead
        and not (message.job_id and client.app.AsyncResult(message.job_id).ready())
    ]
