"""A network that drops packets silently."""

from time import sleep

import pytest
import redis

from callers.client import Client
from cluster.errors import JobTimeout, Unreachable
from tests.faults.account import Outcome
from tests.faults.clock import now
from tests.faults.load import GRACE
from tests.faults.recovery import recovery
from tests.faults.report import Report
from tests.faults.runs import Runs
from tests.faults.stack import inject
from tests.faults.stack.conftest import LEASE, MakeLoad
from tests.support.stack import Stack
from tests.support.waiting import eventually

#: Duration of the cut, in seconds: longer than the lease.
CUT = 4 * LEASE
#: Timeout of a caller during the cut, in seconds.
CALL_TIMEOUT = 5


def test_cut_between_a_worker_and_redis(
    stack: Stack, server: "redis.Redis", load: MakeLoad, runs: Runs, report: Report
) -> None:
    (database,) = stack.containers("redis")
    worker = stack.containers("add")[0]
    with load() as jobs:
        with inject.cut(stack, worker, inject.address(stack, database)):
            sleep(CUT)
        back = now()
        took = eventually("it runs jobs again", lambda: began_on(runs, worker, back), 60) - back
        account = jobs.account()
    report.add(f"worker cut off from Redis for {CUT} s", account, took)

    account.check()


def began_on(runs: Runs, container: str, moment: float) -> float:
    """Return the start of a container's first run after a moment, or 0."""
    began = (run.began for run in runs.all() if run.host == container[:12] and run.began > moment)
    return min(began, default=0)


def test_cut_between_callers_and_redis(
    stack: Stack, server: "redis.Redis", load: MakeLoad, runs: Runs, report: Report
) -> None:
    (database,) = stack.containers("redis")

    # Not by the engine's proxy of the published port, which would still answer.
    def direct() -> Client:
        url = stack.result_url.replace(
            f"127.0.0.1:{stack.port}", f"{inject.address(stack, database)}:6379"
        )
        return Client(url, url)

    with direct() as client, load(connect=direct) as jobs:
        job = client.submit("add.tasks.longtime_add", 4, 6, 1)
        with inject.cut(stack, database, inject.gateway(stack, database)):
            began = now()
            with pytest.raises((JobTimeout, Unreachable)):
                client.call("add.tasks.add", 4, 6, timeout=CALL_TIMEOUT)
            assert now() - began < CALL_TIMEOUT + GRACE
            sleep(max(0, began + CUT - now()))
        took = recovery(server, runs)
        assert client.get(job, 60) == 10
        account = jobs.account()
    report.add(f"callers cut off from Redis for {CUT} s", account, took)

    account.check(Outcome.REFUSED)
