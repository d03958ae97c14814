"""Long jobs, delayed jobs, and wrong clocks."""

import random
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from callers.client import Client
from tests.faults.account import Submitted
from tests.faults.clock import RESOLUTION, now
from tests.faults.jobs import Job, delayed, mixed
from tests.faults.load import IN_FLIGHT
from tests.faults.report import Report
from tests.faults.runs import Runs
from tests.faults.stack.conftest import CONCURRENCY, FOLDER, LEASE, MakeLoad
from tests.support.stack import Stack, docker

#: Duration of a job that takes longer than five leases, in seconds.
LONG = 5 * LEASE + 2
#: Countdown that exceeds ten leases and the restart of all workers, in seconds.
LATER = 10 * LEASE + 1
#: Period in which 2,000 jobs become due, in seconds: workers can keep up.
SPREAD = 30
#: Limit for the delay of a job that is due, in seconds: one that was reclaimed would begin later.
MAX_DELAY = LEASE
#: Countdown of a job that is due while a clock is wrong, in seconds.
SOON = 10


def test_jobs_longer_than_five_leases(
    stack: Stack, client: Client, load: MakeLoad, runs: Runs, report: Report
) -> None:
    stack.scale("add", 2)
    results = [client.submit("add.tasks.longtime_add", i, i, LONG) for i in range(CONCURRENCY)]
    with load(max_jobs=IN_FLIGHT) as jobs:
        values = [client.get(result, LONG + 60) for result in results]
        account = jobs.account()
    report.add("jobs longer than five leases, on two workers", account)

    account.check()
    assert values == [2 * i for i in range(CONCURRENCY)]
    assert [len(runs.of(result.id)) for result in results] == [1] * CONCURRENCY
    account.check_one_run_each()


def test_etas_past_ten_leases_through_a_restart(
    stack: Stack, load: MakeLoad, runs: Runs, report: Report
) -> None:
    later = partial(delayed, min_seconds=LATER, max_seconds=LATER + SPREAD)
    with load(jobs=later, max_jobs=IN_FLIGHT) as jobs:
        for container in stack.containers("add"):
            docker("restart", container, seconds=300)
        stack.wait_until_healthy("add")
        first = min(job.due for job in jobs.jobs)
        assert now() < first, "the restart took until jobs were due"
        account = jobs.account(LATER + SPREAD + 60)
    report.add("an ETA past ten leases, through a restart of all workers", account)

    account.check()
    account.check_one_run_each()
    early, late = lateness(jobs.jobs, runs)
    assert early >= -RESOLUTION, f"a job began {-early:.2f} s early"
    assert late < MAX_DELAY, f"a job began {late:.2f} s late"


def lateness(jobs: list[Submitted], runs: Runs) -> tuple[float, float]:
    """Return the least and the greatest delay after which jobs began."""
    due = {job.job_id: job.due for job in jobs}
    after = [run.began - due[run.job_id] for run in runs.all() if run.job_id in due]
    return min(after), max(after)


def sometimes_delayed(chance: random.Random) -> Iterator[Job]:
    """Yield jobs without end, every tenth of them due later."""
    soon, later = mixed(chance), delayed(chance, SOON, 2 * SOON)
    while True:
        yield next(later) if chance.random() < 0.1 else next(soon)


def test_clocks_an_hour_off(
    stack: Stack,
    load: MakeLoad,
    runs: Runs,
    report: Report,
    faketime: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKETIME_LIBRARY", faketime)
    overlay = f"--file={FOLDER}/clock.yml"
    others = ("add-ahead", "add-behind")
    stack.scale("add", 1)
    stack.compose(overlay, "up", "--detach", "--wait", "--no-deps", "--no-build", *others)
    try:
        hosts = {name: stack.compose(overlay, "ps", "-q", name)[:12] for name in others}
        times = {name: clock(stack, host) for name, host in hosts.items()}
        assert times["add-ahead"] - times["add-behind"] > 7000, "the clocks are right"
        with load(jobs=sometimes_delayed, max_jobs=IN_FLIGHT) as jobs:
            account = jobs.account()
    finally:
        stack.compose(overlay, "rm", "--stop", "--force", *others)
    report.add("clocks of two workers an hour ahead and an hour behind", account)

    account.check()
    account.check_one_run_each()
    assert lateness([job for job in jobs.jobs if job.job.countdown], runs)[0] >= -RESOLUTION
    busy = Counter(run.host for run in runs.all())
    assert all(busy[host] for host in hosts.values()), f"a worker ran nothing: {busy}"


def clock(stack: Stack, container: str) -> float:
    """Return the time by a container's clock."""
    return float(docker("exec", container, "python", "-c", "import time; print(time.time())"))
