"""Workers that are killed or stopped during jobs."""

import random
from functools import partial
from time import sleep
from typing import Any

from callers.client import Client
from tests.faults.clock import now
from tests.faults.report import Report
from tests.faults.runs import Run, Runs
from tests.faults.stack import inject
from tests.faults.stack.conftest import CONCURRENCY, LEASE, WORKERS, MakeLoad
from tests.support.stack import Stack
from tests.support.waiting import eventually

KILLS = 20
#: Pool processes that are killed in the middle of a job.
PROCESSES = 5
#: Limit for the jobs of a load that lasts through all kills.
MAX_JOBS = 60_000
#: Limit for the time of a killed worker's jobs beyond the lease, in seconds.
MARGIN = 5


def test_kill_of_a_worker_container(
    stack: Stack,
    client: Client,
    load: MakeLoad,
    runs: Runs,
    chance: random.Random,
    report: Report,
) -> None:
    hit: list[Run] = []
    took = []
    with load(max_jobs=MAX_JOBS) as jobs:
        for _ in range(KILLS):
            sleep(chance.uniform(0, 1))  # a random moment
            busy = eventually("a worker is busy", lambda: busy_containers(stack, runs), 60)
            container = chance.choice(busy)
            killed = inject.kill(container)
            own = [run for run in runs.under_way(container[:12]) if run.began < killed]
            hit += own
            # One kill at a time: a job that is hit again waits for another lease.
            while not all_done(client, own) and now() < killed + LEASE + MARGIN:
                sleep(0.05)
            took.append(now() - killed)
        account = jobs.account()
    report.add(f"`kill -9` of a worker container, {KILLS} times", account, max(took))

    account.check()
    assert hit, "no kill has hit a job"
    assert max(took) < LEASE + MARGIN


def busy_containers(stack: Stack, runs: Runs) -> list[str]:
    """Return the running add containers that run jobs."""
    recent = {run.host for run in runs.under_way() if run.began > now() - 2}
    return [container for container in stack.containers("add") if container[:12] in recent]


def all_done(client: Client, hit: list[Run]) -> bool:
    """Return True if each job that was hit has a result, which may be from before."""
    return all(client.app.AsyncResult(run.job_id).ready() for run in hit)


def test_kill_of_a_pool_process(
    stack: Stack,
    client: Client,
    load: MakeLoad,
    runs: Runs,
    chance: random.Random,
    report: Report,
) -> None:
    with load() as jobs:
        results = [different(client, 2) for _ in range(PROCESSES)]
        took = []
        for result in chance.sample(results, PROCESSES):
            run = eventually("the job runs", partial(runs.of, result.id), 60)[0]
            killed = now()
            inject.kill_process(run.host, run.process)
            took.append((result, killed))
        values = [client.get(result, 60) for result in results]
        account = jobs.account()
    recovery = max(runs.of(result.id)[-1].began - killed for result, killed in took)
    report.add(f"`kill -9` of a pool process, {PROCESSES} times", account, recovery)

    account.check()
    assert all(len(runs.of(result.id)) > 1 for result in results), "a kill has hit no process"
    assert [stored(client, result) for result in results] == values


def test_a_worker_stopped_for_longer_than_the_lease(
    stack: Stack, client: Client, load: MakeLoad, runs: Runs, report: Report
) -> None:
    with load() as jobs:
        results = [different(client, 1) for _ in range(WORKERS * CONCURRENCY)]
        own = {result.id for result in results}

        def holder() -> str:
            return next((run.host for run in runs.under_way() if run.job_id in own), "")

        container = eventually("one of them runs", holder, 60)
        with inject.stopped(container):
            stopped = now()
            held = [run for run in runs.under_way(container) if run.job_id in own]
            values = [client.get(result, 60) for result in results]
            recovery = now() - stopped
        eventually(
            "the worker that was stopped has ended its runs",
            lambda: not [run for run in runs.under_way(container) if run.began < stopped],
            60,
        )
        account = jobs.account()
    report.add("SIGSTOP of a worker for longer than the lease, SIGCONT", account, recovery)

    account.check()
    assert held
    assert recovery > LEASE, "the worker was not stopped for longer than the lease"
    assert [stored(client, result) for result in results] == values


def different(client: Client, seconds: float) -> Any:
    """Submit a job whose value differs in each run."""
    return client.app.send_task("tests.faults.tasks.differ", (seconds,), queue="add")


def stored(client: Client, result: Any) -> Any:
    """Return the stored value, not one that was read before."""
    return client.app.AsyncResult(result.id).get(timeout=30)
