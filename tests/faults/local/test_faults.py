"""Every accepted job is accounted for, whatever is killed, stopped or sent."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import sleep

import pytest
import redis

from callers.client import Client
from tests.faults import malformed
from tests.faults.account import Outcome
from tests.faults.clock import now
from tests.faults.local.conftest import CONCURRENCY, LEASE, WORKERS, MakeLoad, Workers
from tests.faults.runs import Runs
from tests.support.local import Local
from tests.support.waiting import eventually

KILLS = 3
MALFORMED = 200


def test_kill_of_a_worker(load: MakeLoad, workers: Workers, chance: random.Random) -> None:
    with load() as jobs:
        for _ in range(KILLS):
            sleep(chance.uniform(0, 0.5))  # a random moment
            worker = chance.choice(workers.of("add"))
            worker.kill()
            worker.wait(10)
            workers.heal()
        account = jobs.account()

    account.check()


def test_kill_of_a_pool_process(load: MakeLoad, client: Client, runs: Runs) -> None:
    with load() as jobs:
        result = client.app.send_task("tests.faults.tasks.differ", (2,), queue="add")
        run = eventually("the job runs", partial(runs.of, result.id), 60)[0]
        os.kill(run.process, signal.SIGKILL)
        value = client.get(result, 60)
        account = jobs.account()

    account.check()
    assert len(runs.of(result.id)) > 1
    assert client.app.AsyncResult(result.id).get(timeout=30) == value


@pytest.mark.parametrize("whole", [True, False], ids=["with its pool", "alone"])
def test_a_worker_stopped_for_longer_than_the_lease(
    load: MakeLoad, client: Client, workers: Workers, runs: Runs, whole: bool
) -> None:
    with load() as jobs:
        results = [
            client.app.send_task("tests.faults.tasks.differ", (1,), queue="add")
            for _ in range(WORKERS * CONCURRENCY)
        ]
        own = {result.id for result in results}
        run = eventually(
            "one runs", lambda: [run for run in runs.under_way() if run.job_id in own], 60
        )[0]
        with stopped(run.worker, whole=whole):
            began = now()
            values = [client.get(result, 60) for result in results]
            sleep(max(0, began + 2 * LEASE - now()))  # the fault itself
        eventually(
            "the runs that were stopped have ended",
            lambda: (
                not [run for run in runs.under_way() if run.job_id in own and run.began < began]
            ),
        )
        account = jobs.account()

    account.check()
    again = [client.app.AsyncResult(result.id).get(timeout=30) for result in results]
    assert again == values


@contextmanager
def stopped(worker: int, *, whole: bool) -> Iterator[None]:
    """Stop a worker by SIGSTOP, with or without its pool, and continue it in the end."""
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    processes = [worker, *(map(int, children) if whole else ())]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_kill_of_redis(
    load: MakeLoad, local: Local, workers: Workers, chance: random.Random
) -> None:
    before = workers.of("add")
    with load() as jobs:
        sleep(chance.uniform(0, 1))  # a random moment
        (running,) = local.running("server")
        running.signal(signal.SIGKILL)
        account = jobs.account()

    account.check(Outcome.REFUSED)
    assert workers.of("add") == before, "a worker has ended"


def test_client_kill_of_every_connection(
    load: MakeLoad, server: "redis.Redis", workers: Workers
) -> None:
    before = workers.of("add")
    with load() as jobs:
        for kind in ("normal", "pubsub"):
            server.client_kill_filter(_type=kind, skipme=True)
        account = jobs.account()

    account.check(Outcome.REFUSED)
    assert workers.of("add") == before, "a worker has ended"


def test_malformed_messages_among_good_ones(
    load: MakeLoad, server: "redis.Redis", workers: Workers, chance: random.Random
) -> None:
    before = workers.of("add")
    messages = [*malformed.messages(chance, MALFORMED)]
    chance.shuffle(messages)
    with load() as jobs:
        for i, message in enumerate(messages):
            malformed.put(server, "add", message.payload, in_stream=bool(i % 2))
        account = jobs.account()

    account.check()
    assert workers.of("add") == before, "a worker has ended"
