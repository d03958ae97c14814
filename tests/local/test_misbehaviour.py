"""A task may misbehave in any way: its caller gets an answer, and the next job runs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.exceptions import EncodeError

from callers.client import Client
from cluster.errors import DeadLetter, OutOfMemory
from cluster.heartbeat import FETCH_TIMEOUT
from tests.support.local import Local
from tests.support.waiting import eventually

MODULE = "tests.local.misbehaving_tasks"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a worker whose tasks misbehave."""
    local = Local(tmp_path_factory.mktemp("misbehaving"), "--server-only")
    try:
        local.wait_until_ready()
        with local.own_worker("tests.local.misbehaving_worker") as worker, local.client() as client:
            yield client
            assert worker.poll() is None, "the worker itself ended"
        # A worker that is about to end has logged this.
        assert "Unrecoverable error" not in local.own_log.read_text()
    finally:
        local.stop()


def call(client: Client, task: str, *args: object) -> object:
    result = client.app.send_task(f"{MODULE}.{task}", args, queue="add")
    try:
        return result.get(timeout=60)
    finally:
        # The worker still runs jobs.
        assert client.app.send_task(f"{MODULE}.recurse", (0,), queue="add").get(timeout=30) == 1


@pytest.mark.parametrize(
    ("task", "words"),
    [("out_of_memory", "in the task"), ("out_of_memory_in_numpy", "Unable to allocate 8.00 PiB")],
)
def test_a_memory_error_is_the_jobs_failure(client: Client, task: str, words: str) -> None:
    with pytest.raises(OutOfMemory, match=f"not enough memory on the worker: .*{words}"):
        call(client, task)


def test_a_result_that_cannot_be_stored_is_the_jobs_failure(client: Client) -> None:
    with pytest.raises((OutOfMemory, EncodeError), match="while storing"):
        call(client, "result_too_large")


def test_a_memory_error_after_the_result_leaves_the_result(client: Client) -> None:
    assert call(client, "out_of_memory_afterwards") == "stored"


def test_a_job_that_kills_its_process_every_time_is_a_dead_letter(client: Client) -> None:
    with pytest.raises(DeadLetter, match="delivered 3 times, and each time its pool process died"):
        call(client, "kill_the_process")


def test_a_task_may_call_itself(client: Client) -> None:
    value = call(client, "recurse", 20)

    assert isinstance(value, int)
    assert value == 2**20_000


def test_an_error_of_the_job_is_not_taken_for_a_broken_connection(client: Client) -> None:
    result = client.app.send_task(f"{MODULE}.error_of_the_client", queue="add")

    with pytest.raises(RuntimeError, match="the job's own"):
        client.get(result)


def test_a_message_that_no_request_can_be_made_of_is_a_dead_letter(tmp_path: Path) -> None:
    local = Local(tmp_path, "--server-only", JOB_LEASE="2")
    try:
        local.wait_until_ready()
        with local.client() as client:
            poison = client.app.send_task(f"{MODULE}.no_request", queue="add")
            good = client.app.send_task(f"{MODULE}.recurse", (0,), queue="add")
            with local.own_worker("tests.local.misbehaving_worker") as worker:
                with pytest.raises(DeadLetter, match="delivered 3 times, and each time its pool"):
                    poison.get(timeout=60)
                assert good.get(timeout=60) == 1
                assert worker.poll() is None
    finally:
        local.stop()


def test_a_worker_that_hangs_ends_itself_and_its_jobs_run_elsewhere(tmp_path: Path) -> None:
    local = Local(tmp_path, "--server-only", JOB_LEASE="2", WORKER_HANG_TIMEOUT="4")
    try:
        local.wait_until_ready()
        with local.client() as client:
            with local.own_worker("tests.local.misbehaving_worker") as worker:
                assert client.app.send_task(f"{MODULE}.recurse", (0,), queue="add").get(timeout=60)
                client.app.control.broadcast("hang")
                assert worker.wait(60) == 1
            assert "no heartbeat for 4 s: the worker exits" in local.own_log.read_text()
            job = client.app.send_task(f"{MODULE}.recurse", (0,), queue="add")
            with local.own_worker("tests.local.misbehaving_worker"):
                assert job.get(timeout=60) == 1
    finally:
        local.stop()


def test_a_worker_whose_server_hangs_does_not_end_itself(tmp_path: Path) -> None:
    local = Local(tmp_path, "--server-only", WORKER_HANG_TIMEOUT="4")
    try:
        local.wait_until_ready()
        (server,) = local.running("server")
        with (
            local.client() as client,
            local.own_worker("tests.local.misbehaving_worker") as worker,
        ):
            assert client.app.send_task(f"{MODULE}.recurse", (0,), queue="add").get(timeout=60)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                eventually(
                    "the watchdog has looked",
                    lambda: "no heartbeat for 4 s: broker unreachable" in local.own_log.read_text(),
                    seconds=60,
                )
            finally:
                os.kill(server.pid, signal.SIGCONT)
            assert client.app.send_task(f"{MODULE}.recurse", (0,), queue="add").get(timeout=60)
            assert worker.poll() is None
    finally:
        local.stop()


def test_a_worker_that_waits_or_is_paused_does_not_end_itself(tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    local = Local(tmp_path, "--server-only", WORKER_HANG_TIMEOUT="4")
    try:
        local.wait_until_ready()
        variables = {"WORKER_HEARTBEAT_FILE": str(heartbeat)}
        with (
            local.client() as client,
            local.own_worker("tests.local.misbehaving_worker", **variables) as worker,
        ):
            assert client.app.send_task(f"{MODULE}.recurse", (0,), queue="add").get(timeout=60)
            client.app.control.cancel_consumer("add", reply=True, timeout=10, limit=1)
            eventually("it has begun to beat", heartbeat.exists)
            paused_at = heartbeat.stat().st_mtime
            # It beats for longer than the timeout of a fetch.
            eventually("it beats", lambda: heartbeat.stat().st_mtime > paused_at + FETCH_TIMEOUT)
            assert worker.poll() is None
    finally:
        local.stop()


def test_a_task_that_waits_for_jobs_of_its_own_gets_them(client: Client) -> None:
    assert call(client, "calls_another", 10) == [11, 12, 13, 14]
