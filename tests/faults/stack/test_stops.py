"""Operations under load: stop, start, scale, rolling restart."""

from tests.faults.clock import now
from tests.faults.recovery import began_after
from tests.faults.report import Report
from tests.faults.runs import Runs
from tests.faults.stack.conftest import WORKERS, MakeLoad, up
from tests.support.stack import Stack, docker
from tests.support.waiting import eventually


def test_stop_and_up(stack: Stack, load: MakeLoad, runs: Runs, report: Report) -> None:
    with load() as jobs:
        stack.compose("stop", "add", "factorial", seconds=300)
        began = now()
        up(stack)
        took = eventually("a job begins", lambda: began_after(runs, began), 60) - began
        account = jobs.account()
    report.add("`docker compose stop` and `up` of all workers", account, took)

    account.check()
    account.check_one_run_each()


def test_scaling_to_one_and_back(stack: Stack, load: MakeLoad, report: Report) -> None:
    with load() as jobs:
        stack.scale("add", 1)
        assert len(stack.containers("add")) == 1
        stack.scale("add", WORKERS)
        account = jobs.account()
    report.add(f"scale {WORKERS} → 1 → {WORKERS}", account)

    account.check()
    account.check_one_run_each()


def test_rolling_restart(stack: Stack, load: MakeLoad, report: Report) -> None:
    with load() as jobs:
        for container in stack.containers("add") + stack.containers("factorial"):
            docker("restart", container, seconds=300)
            stack.wait_until_healthy("add")
        account = jobs.account()
    report.add("rolling restart of all workers", account)

    account.check()
    account.check_one_run_each()
