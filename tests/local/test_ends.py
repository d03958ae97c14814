"""Every end of a job reaches its caller, and an invalid job is an error of one sentence at once."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from kombu import Queue
from redis import Redis

from callers.client import Client
from celery_streams import dead_letters
from local.server import ROOT
from tests.support.local import Local
from tests.support.waiting import eventually

MODULE = "tests.local.misbehaving_tasks"


Chain: Any = chain  # the stubs want a task in it


@pytest.mark.parametrize("empty", [Chain([]), Chain(), Chain(Chain([]))])
def test_an_empty_chain_is_one_sentence(client: Client, empty: Any) -> None:
    with pytest.raises(ValueError, match="the canvas is empty"):
        client.call(empty)


def test_empty_groups_have_a_value(client: Client) -> None:
    total = client.signature("add.tasks.tsum")

    assert client.call(group([])) == []
    assert client.call(chord([], total)) == 0
    assert client.map("add.tasks.add", []) == []


@pytest.mark.parametrize("task", [None, 7, ["add.tasks.add"], {"args": []}, b"add.tasks.add"])
def test_an_invalid_job_is_one_sentence(client: Client, task: Any) -> None:
    for way in (client.call, client.submit):
        with pytest.raises(TypeError, match="a job is a task's name or a signature, not"):
            way(task, 4, 6)


def test_a_value_is_had_by_the_jobs_id(client: Client) -> None:
    assert client.get(client.submit("add.tasks.add", 4, 6).id) == 10


@pytest.mark.parametrize("what", [None, 7, "", "  ", {"id": "x"}])
def test_what_is_no_result_is_one_sentence(client: Client, what: Any) -> None:
    with pytest.raises(TypeError, match="get takes what submit returned, or a job's id, not"):
        client.get(what)


@pytest.mark.parametrize("timeout", ["5", None, [1], True])
def test_an_invalid_timeout_is_one_sentence(client: Client, timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not"):
        client.call("add.tasks.add", 4, 6, timeout=timeout)


@pytest.mark.parametrize("job_id", ["half \ud800", "x" * 1025])
def test_an_id_that_no_key_can_have_is_refused(client: Client, job_id: str) -> None:
    with pytest.raises(ValueError, match="task_id must be a string of at most 1024 characters"):
        client.call(client.signature("add.tasks.add", 4, 6).set(task_id=job_id))


def test_half_a_character_is_the_tasks_to_judge(client: Client) -> None:
    with pytest.raises(TypeError, match="x must be a number"):
        client.get(client.app.send_task("add.tasks.add", ("half \ud800", 6)))


def test_a_misspelt_option_is_named(client: Client) -> None:
    wrong = client.signature("add.tasks.add", 4, 6).set(prioritty="high")
    right = client.signature("add.tasks.add", 4, 6)

    for canvas in (wrong, chain(right, wrong), group([right, wrong]), chord([right], wrong)):
        with pytest.raises(TypeError, match="unknown option 'prioritty'; did you mean 'priority'"):
            client.call(canvas)


def test_a_client_inside_a_task_gets_its_value(server_only: Local) -> None:
    with (
        server_only.client() as client,
        server_only.own_worker("tests.local.misbehaving_worker", ADD_CONCURRENCY="2"),
    ):
        for way in ("call", "submit", "map", "chain"):
            job = client.app.send_task(f"{MODULE}.ask_inside", (way,), queue="add")
            assert job.get(timeout=60) == 1, way


@pytest.mark.parametrize("how", ["control", "stock"])
def test_callers_of_purged_jobs_get_an_error_at_once(server_only: Local, how: str) -> None:
    with server_only.client() as client:
        add = client.signature("add.tasks.add", 4, 6)
        jobs = [client.submit("add.tasks.add", i, i) for i in range(30)]
        jobs += [client.submit(add.set(countdown=600)), client.submit(add.set(priority="low"))]
        of_chord = client.submit(chord([add, add], client.signature("add.tasks.tsum")))
        if how == "control":
            purged = client.app.control.purge()
        else:
            done = server_only.command("celery", "-A", "add.worker", "purge", "-f")
            assert done.returncode == 0, done.stderr
            purged = int(done.stdout.split("Purged ")[1].split()[0])
        assert purged == 34
        for job in [*jobs, of_chord]:
            with pytest.raises(TaskRevokedError, match="purged"):
                client.get(job, timeout=20)


def length(client: Client, stream: str) -> int:
    """Return the length of a stream."""
    store: Any = client.app.backend
    with Redis(connection_pool=store.client.connection_pool) as redis:
        return int(redis.xlen(stream))


@pytest.mark.parametrize("pool", ["", "solo", "prefork", "threads"])
def test_a_job_that_is_acknowledged_early_runs_once(
    server_only: Local, tmp_path: Path, pool: str
) -> None:
    trace = tmp_path / "trace"
    with server_only.client() as client:
        job = client.app.send_task(f"{MODULE}.kill_once_begun", (str(trace),), queue="add")
        options = {"ADD_CONCURRENCY": "1", "TEST_POOL": pool}
        with server_only.own_worker("tests.local.misbehaving_worker", **options) as worker:
            eventually("it began", lambda: trace.exists() and trace.read_text())
            # In a process of a pool, it begins just before it is acknowledged.
            if pool in {"", "prefork"}:
                eventually("it is acknowledged", lambda: length(client, "add:stream:3") == 0)
            else:
                worker.wait(30)
        later = client.app.send_task(f"{MODULE}.recurse", (0,), queue="add")
        with server_only.own_worker("tests.local.misbehaving_worker"):
            assert later.get(timeout=60) == 1
        assert trace.read_text() == "began\n"
        assert job.id


@pytest.mark.parametrize(("pool", "warns"), [("solo", True), ("threads", True), ("prefork", False)])
def test_a_pool_that_keeps_no_time_limits_says_so(
    server_only: Local, pool: str, *, warns: bool
) -> None:
    with (
        server_only.client() as client,
        server_only.own_worker("tests.local.misbehaving_worker", TEST_POOL=pool),
    ):
        job = client.app.send_task(f"{MODULE}.recurse", (0,), queue="add")
        assert job.get(timeout=60) == 1
    assert ("keeps no hard time limits" in server_only.own_log.read_text()) == warns


def test_a_queue_that_does_not_exist_is_wrong_usage(local: Local) -> None:
    for command in (
        *(("list", "nosuch"), ("list", "")),
        *(("replay", "--all", "nosuch"), ("drop", "--all", "no\x1b")),
    ):
        done = local.command("celery_streams", "dead", *command)
        assert done.returncode == 2
        assert "There is no queue '" in done.stderr
        assert "\x1b" not in done.stderr
        assert done.stderr.count("\n") == 1
    assert local.command("celery_streams", "dead", "list", "add").returncode == 0


EVIL = "\x1b]0;owned\x07\x1b[2J"


def test_a_value_is_shown_safely_on_a_terminal_and_exactly_on_a_pipe(local: Local) -> None:
    with local.client() as client:
        store: Any = client.app.backend
        store.store_result("evil", EVIL, "SUCCESS")
        store.store_result("evil-error", ValueError(EVIL), "FAILURE")
        assert local.command("callers.result", "evil").stdout == f"{EVIL}\n"
        failed = local.command("callers.result", "evil-error")
        assert failed.stderr == "error: \\x1b]0;owned\\x07\\x1b[2J\n"
        shown = on_terminal(local, "callers.result", "evil")
        assert "\x1b]0" not in shown
        assert "\\x1b]0;owned" in shown


def on_terminal(local: Local, *command: str) -> str:
    """Return the output of a command on a terminal."""
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=local.env, cwd=ROOT, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        shown = b""
        with suppress(OSError):  # the terminal is closed
            while piece := os.read(master, 65536):
                shown += piece
        assert process.wait(60) == 0
    os.close(master)
    return shown.decode()


def test_no_argument_forges_a_line_of_the_log(local: Local) -> None:
    forged = "4\n[2026-11-27 00:00:00,000: INFO/MainProcess] Task paid\x1b[2J"
    with local.client() as client:
        job = client.app.send_task(
            "add.tasks.longtime_add", (4, 6, 0), argsrepr=forged, shadow=f"shadow {forged}"
        )
        assert client.get(job) == 10
        eventually("it is logged", lambda: job.id in local.output())
    assert "\n[2026-11-27 00:00:00,000" not in local.output()
    assert "\x1b[2J" not in local.output()


def test_stock_programs_may_purge_what_they_do_not_know(server_only: Local) -> None:
    with server_only.client() as client:
        jobs = [client.submit("add.tasks.add", i, i) for i in range(3)]
        stranger: Any = Celery(broker=server_only.url, set_as_current=False)
        stranger.conf.update(
            broker_transport="celery_streams:Transport",
            task_queues=[Queue("add", routing_key="add")],
        )
        assert stranger.control.purge() == len(jobs)


@pytest.mark.parametrize("is_late", [True, False])
def test_a_job_past_its_expiry_is_revoked_whenever_its_worker_starts(
    server_only: Local, is_late: bool
) -> None:
    """Celery names the expiry twice, for itself and for the broker."""
    with server_only.client() as client:
        other = client.submit("add.tasks.longtime_add", 1, 2, 1.5)
        job = client.submit(client.signature("add.tasks.add", 4, 6).set(expires=1))
        if is_late:
            sleep(1.5)
        with server_only.own_worker("local", "worker", "add", ADD_CONCURRENCY="1"):
            assert client.get(other) == 3
            if is_late:
                with pytest.raises(TaskRevokedError):
                    client.get(job, timeout=20)
            else:  # it was still queued when its worker started
                with suppress(TaskRevokedError):
                    assert client.get(job, timeout=20) == 10
                assert job.state in {"SUCCESS", "REVOKED"}
        store: Any = client.app.backend
        with Redis(connection_pool=store.client.connection_pool) as redis:
            assert dead_letters.queues(redis) == []
