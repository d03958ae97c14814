"""Redis killed, restarted, cut off from its clients, and out of memory or disk."""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import pytest
import redis

from callers.client import Client
from cluster.errors import ClusterError
from tests.faults.account import Outcome
from tests.faults.load import Load
from tests.faults.recovery import recovery
from tests.faults.report import Report
from tests.faults.runs import Runs
from tests.faults.stack import inject
from tests.faults.stack.conftest import FOLDER, MakeLoad, answers
from tests.support.stack import Stack, docker
from tests.support.waiting import eventually

KILLS = 5
#: Jobs that are refused before Redis has room again.
REFUSED = 8
#: Jobs that may be accepted while the disk fills up.
MAX_ACCEPTED = 10_000


def test_kill_of_redis(
    stack: Stack,
    server: "redis.Redis",
    load: MakeLoad,
    runs: Runs,
    chance: random.Random,
    report: Report,
) -> None:
    (container,) = stack.containers("redis")
    workers = restarts(stack)
    took = []
    with load() as jobs:
        for _ in range(KILLS):
            sleep(chance.uniform(0, 2))  # a random moment
            inject.kill(container)
            took.append(recovery(server, runs))
        account = jobs.account()
    report.add(f"`kill -9` of Redis, {KILLS} times", account, max(took))

    account.check(Outcome.REFUSED)
    assert restarts(stack) == workers, "a worker has ended"


def test_restart_of_redis(
    stack: Stack, server: "redis.Redis", load: MakeLoad, runs: Runs, report: Report
) -> None:
    (container,) = stack.containers("redis")
    workers = restarts(stack)
    with load() as jobs:
        docker("restart", container)
        took = recovery(server, runs)
        account = jobs.account()
    report.add("restart of Redis", account, took)

    account.check(Outcome.REFUSED)
    assert restarts(stack) == workers, "a worker has ended"


def test_client_kill_of_every_connection(
    stack: Stack, server: "redis.Redis", load: MakeLoad, runs: Runs, report: Report
) -> None:
    workers = restarts(stack)
    with load() as jobs:
        for kind in ("normal", "pubsub"):
            assert server.client_kill_filter(_type=kind, skipme=True)
        took = recovery(server, runs)
        account = jobs.account()
    report.add("`CLIENT KILL` of every connection", account, took)

    account.check(Outcome.REFUSED)
    assert restarts(stack) == workers, "a worker has ended"


def restarts(stack: Stack) -> list[tuple[str, int]]:
    """Return the number of restarts of each worker."""
    containers = sorted(stack.containers("add") + stack.containers("factorial"))
    return [(container, stack.inspect(container)["RestartCount"]) for container in containers]


def refused(jobs: Load) -> list[str]:
    """Return the errors of the jobs that were refused."""
    return [job.instead for job in jobs.jobs if job.outcome is Outcome.REFUSED]


def test_redis_at_maxmemory(
    client: Client, server: "redis.Redis", load: MakeLoad, runs: Runs, report: Report
) -> None:
    with load() as jobs:
        server.config_set("maxmemory", "1mb")
        with pytest.raises(Exception, match="memory"):
            client.submit("add.tasks.add", 4, 6)
        errors = eventually("callers are refused", lambda: enough(refused(jobs)), 60)
        server.config_set("maxmemory", "2gb")
        took = recovery(server, runs)
        account = jobs.account()
    report.add("Redis at `maxmemory`", account, took)

    account.check(Outcome.REFUSED)
    assert all("memory" in error for error in errors), errors[:3]


def enough(errors: list[str]) -> list[str]:
    """Return the errors, once there are enough of them."""
    return errors if len(errors) >= REFUSED else []


def test_disk_of_redis_full(
    stack: Stack, client: Client, server: "redis.Redis", load: MakeLoad, runs: Runs, report: Report
) -> None:
    with small_disk(stack, server) as fill, load() as jobs:
        fill("dd if=/dev/zero of=/data/ballast bs=64k || true")
        # Not by the load's callers: all of their jobs are in flight, and none ends.
        accepted, errors = until_refused(client)
        fill("rm /data/ballast")
        # The engine waits for longer after each failed start, so an operator restarts Redis.
        docker("restart", stack.compose("ps", "--all", "--quiet", "redis"))
        took = recovery(server, runs)
        # Clients wait for longer after each failed attempt.
        account = jobs.account(120)
        values = [client.get(job) for job in accepted]
    report.add("disk of Redis full", account, took)

    account.check(Outcome.REFUSED)
    assert values == [10] * len(values)
    assert all(re.search("broker|disk", error) for error in errors), errors


def until_refused(client: Client) -> tuple[list[Any], list[str]]:
    """Submit jobs until enough of them are refused; return the accepted ones and the errors."""
    accepted: list[Any] = []
    errors: list[str] = []
    while len(errors) < REFUSED:
        try:
            accepted.append(client.submit("add.tasks.add", 4, 6))
        except ClusterError as error:
            errors.append(str(error))
        assert len(accepted) < MAX_ACCEPTED, "the disk is full, but jobs are accepted"
    return accepted, errors


@contextmanager
def small_disk(stack: Stack, server: "redis.Redis") -> Iterator[Callable[[str], None]]:
    """Restart Redis on a small disk, and yield a function that runs a command there."""
    overlay = f"--file={FOLDER}/small_disk.yml"
    start = ("up", "--detach", "--wait", "--no-deps", "--no-build")

    def run(command: str) -> None:
        stack.compose(overlay, "exec", "-T", "disk", "sh", "-c", command)

    stack.compose(overlay, *start, "disk", "redis")
    try:
        eventually("Redis answers", lambda: answers(server), 60)
        for family in ("add", "factorial"):
            stack.wait_until_healthy(family)
        yield run
    finally:
        stack.compose(overlay, "rm", "--stop", "--force", "disk")
        stack.compose(*start, "redis")
        docker("volume", "rm", f"{stack.project}_small")
        eventually("Redis answers", lambda: answers(server), 60)
