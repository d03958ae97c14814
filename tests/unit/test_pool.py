"""The state of jobs in the pool of processes."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.asynchronous import Hub

from celery_streams.worker.pool import Pool
from tests.waiting import eventually

#: More bytes than a pipe buffers.
LARGE = 4 * 1024 * 1024


@pytest.fixture
def hub() -> Iterator[Any]:
    """The event loop of a worker's main process."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def pool(hub: Any) -> Iterator[Any]:
    """A pool of one process, which is up."""
    pool: Any = Pool(processes=1, threads=False)
    try:
        pool.register_with_event_loop(hub)
        eventually("the process is up", lambda: hub.run_once() or pool._all_inqueues)
        yield pool
    finally:
        pool.terminate()
        pool.join()


@pytest.mark.parametrize("is_stop", [True, False], ids=["at a stop", "without its connection"])
@pytest.mark.parametrize("size", [1, LARGE], ids=["small", "large"])
def test_a_job_that_a_process_was_just_given_is_known_to_run(
    pool: Any, hub: Any, size: int, is_stop: bool
) -> None:
    accepted: list[int] = []
    job = pool.apply_async(len, (b"x" * size,), accept_callback=lambda pid, _: accepted.append(pid))
    eventually("it is written", lambda: job._write_to or hub.run_once())
    assert not accepted, "the process confirmed it already"
    left = pool.apply_async(os.getpid)

    if is_stop:
        pool.close()
    pool.flush()

    assert accepted == [pool._pool[0].pid]
    assert {*pool._cache.values()} == {job}, (
        "a job that no process was given is left to other workers"
    )
    assert not left.ready()
    if is_stop:
        pool.join()
    else:
        eventually("it ends", lambda: job.ready() or hub.run_once())
    assert job.get(0) == size
