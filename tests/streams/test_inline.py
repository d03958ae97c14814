"""Inline tasks behave as in Celery's pool; unsupported jobs run in the pool."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import chain, chord, group
from kombu.exceptions import OperationalError

from celery_streams.transport.dispatch import MAX_EARLY
from tests.streams.test_pools import worker as run_worker
from tests.waiting import eventually

#: Tasks, with arguments, that end with a result or an error.
ENDS = [
    ("echo", [value])
    for value in (None, 7, -(2**70), 2.5, float("inf"), "text", "ü", True, [1, [2]], {"a": None})
] + [("fail", ["no"]), ("retry", []), ("child", []), ("slow", [])]

Twins = Any


@pytest.fixture
def program(url: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Twins]:
    """The program's module."""
    monkeypatch.setenv("PLAIN_URL", url)
    sys.modules.pop("tests.streams.twins", None)
    twins: Any = import_module("tests.streams.twins")

    yield twins
    backend: Any = twins.app.backend
    backend.result_consumer.stop()
    backend.client.connection_pool.disconnect()
    twins.app.close()


@pytest.fixture
def start(
    program: Twins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., AbstractContextManager[tuple[Twins, int]]]:
    """A function that starts a worker, and yields the program's module and the worker's pid."""

    @contextmanager
    def start(*arguments: str, **variables: str) -> Iterator[tuple[Twins, int]]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with run_worker(program, tmp_path / "log", "prefork", *arguments) as process:
            # A broadcast does not reach a worker that is still starting.
            name = next((each for each in arguments if "@" in each), "celery@%h")
            name = name.replace("%h", socket.gethostname())
            eventually("the worker is up", lambda: _answers(program, name))
            yield program, process.pid
        assert process.returncode == 0, (tmp_path / "log").read_text()

    return start


def _answers(twins: Twins, worker: str) -> bool:
    """Return True if a worker answers; an earlier test may have closed our connections."""
    with suppress(redis.ConnectionError, OperationalError):
        return bool(twins.app.control.ping([worker], timeout=0.3))
    return False


def signature(twins: Twins, kind: str, name: str, *args: Any, **options: Any) -> Any:
    """Return a job of one of a pair, from a caller that does not know the task's limits."""
    unlimited = {"time_limit": None, "soft_time_limit": None}
    return twins.app.signature(f"{kind}.{name}", args, **options).set(**unlimited)


def pair(twins: Twins, name: str, *args: Any, **options: Any) -> list[Any]:
    """Send a job to each of a pair, first to the inline one."""
    return [
        signature(twins, kind, name, *args).apply_async(**options) for kind in ("inline", "stock")
    ]


def process_of(twins: Twins, kind: str, **options: Any) -> int:
    """Return the pid of the process that runs a job of one of a pair."""
    job = signature(twins, kind, "process").apply_async(**options)
    return int(job.get(timeout=20))


def known(store: Any, job: Any) -> dict[str, Any]:
    """Return the stored result of a job, without the parts that differ between jobs."""
    stored = json.loads(store.get(f"celery-task-meta-{job.id}"))
    assert stored.pop("task_id") == job.id
    assert datetime.fromisoformat(stored.pop("date_done")).tzinfo == UTC
    return dict(json.loads(_common(json.dumps(stored))))


def _common(text: str) -> str:
    """Return a text without the names of twins, ids and line numbers."""
    text = re.sub(r"\b(inline|stock)\.", "", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    return re.sub(r"line \d+", "line N", text)


@pytest.mark.parametrize("has_signals", ["", "1"])
def test_results_hooks_and_signals_are_those_of_celery(
    start: Callable[..., Any], store: Any, has_signals: str
) -> None:
    with start(TWINS_SIGNALS=has_signals) as (twins, _):
        pairs = [(name, pair(twins, name, *args)) for name, args in ENDS]
        for _, jobs in pairs:
            for job in jobs:
                job.get(timeout=30, propagate=False)
        for name, (inline, stock) in pairs:
            assert known(store, inline) == known(store, stock), name
            settle(store, inline, stock, "task_postrun" if has_signals else "after_return")
            assert notes(store, inline) == notes(store, stock), name


def settle(store: Any, inline: Any, stock: Any, last: str) -> None:
    """Wait for the last note, which comes after the result is stored."""
    eventually("the last hook", lambda: last in (notes(store, stock) or [""])[-1])
    eventually(
        "the same number of notes", lambda: len(notes(store, inline)) == len(notes(store, stock))
    )


def notes(store: Any, job: Any) -> list[str]:
    """Return the notes of hooks and signals on a job."""
    return [_common(each) for each in store.lrange(f"notes-{job.id}", 0, -1)]


def test_it_runs_in_the_workers_own_process_and_stock_jobs_do_not(
    start: Callable[..., Any],
) -> None:
    with start() as (twins, worker):
        assert process_of(twins, "inline") == worker
        assert process_of(twins, "stock") != worker


def test_a_process_that_is_forked_between_inline_jobs_stores_its_results(
    start: Callable[..., Any],
) -> None:
    with start() as (twins, worker):
        for _ in range(2):
            assert process_of(twins, "inline") == worker
            process = process_of(twins, "stock")
            os.kill(process, signal.SIGKILL)
            eventually("it is gone", lambda: not Path(f"/proc/{process}").exists())  # noqa: B023
        assert process_of(twins, "stock") not in {worker, process}


def test_a_task_knows_as_much_of_its_job(start: Callable[..., Any]) -> None:
    with start() as (twins, _):
        inline, stock = [
            json.loads(_common(json.dumps(job.get(timeout=20))))
            for job in pair(twins, "request", 1, priority=3)
        ]
        assert inline == stock


#: Options that an inline task does not support; a text is the task of a callback.
POOL_OPTIONS: list[dict[str, Any]] = [
    {"expires": 60},
    {"time_limit": 30},
    {"soft_time_limit": 30},
    {"link": "echo"},
    {"link_error": "echo"},
    {"compression": "zlib"},
]


def test_what_is_not_covered_takes_celerys_way(start: Callable[..., Any]) -> None:
    with start() as (twins, worker):
        for unsupported in POOL_OPTIONS:
            options = {
                key: signature(twins, "stock", value) if value == "echo" else value
                for key, value in unsupported.items()
            }
            assert process_of(twins, "inline", **options) != worker, unsupported
        for name in ("limited", "early"):
            for job in pair(twins, name):
                assert job.get(timeout=20) != worker, name
        # A busy worker may fetch a job only when its time has come, and then runs it inline.
        eventually(
            "one is fetched before its time",
            lambda: process_of(twins, "inline", countdown=MAX_EARLY) != worker,
        )


@pytest.mark.parametrize(
    "when", [{"eta": datetime(2020, 1, 1, tzinfo=UTC)}, {"countdown": 0.7}, {"countdown": 3}]
)
def test_a_job_whose_time_has_come_runs_inline_and_knows_its_time(
    start: Callable[..., Any], when: dict[str, Any]
) -> None:
    with start() as (twins, worker):
        assert process_of(twins, "inline", **when) == worker
        for job in pair(twins, "request", **when):
            eta = datetime.fromisoformat(job.get(timeout=20)["eta"].strip("'"))
            assert eta == when.get("eta", eta)
            assert job.date_done.replace(tzinfo=UTC) >= eta


def test_chains_and_chords_run_to_their_ends(start: Callable[..., Any]) -> None:
    with start() as (twins, worker):
        first, last = (signature(twins, "inline", name) for name in ("process", "echo"))
        assert chain(first, last)().get(timeout=20) != worker
        members = group(signature(twins, "inline", "process") for _ in range(3))
        values = members().get(timeout=20)
        assert values == [worker] * 3
        assert chord(members, last.clone())().get(timeout=20) != [worker] * 3


def test_a_receiver_of_a_signal_gets_every_job(start: Callable[..., Any], store: Any) -> None:
    with start(TWINS_RECEIVED="1") as (twins, worker):
        job = signature(twins, "inline", "process").delay()
        assert job.get(timeout=20) != worker
        assert "task_received" in notes(store, job)


def test_events_are_sent_where_they_are_asked_for(start: Callable[..., Any]) -> None:
    with start("-E") as (twins, worker):
        assert process_of(twins, "inline") != worker


def test_a_revoked_job_does_not_run(start: Callable[..., Any], store: Any) -> None:
    with start() as (twins, _):
        job_id = str(uuid4())
        twins.app.control.revoke(job_id, reply=True, timeout=10)
        job = signature(twins, "inline", "echo", 1).apply_async(task_id=job_id)
        eventually("it is revoked", lambda: job.state == "REVOKED")
        assert not notes(store, job)


def test_ignored_and_silent_jobs_leave_no_result(start: Callable[..., Any], store: Any) -> None:
    with start() as (twins, _):
        jobs = [job for name in ("ignore", "silent") for job in pair(twins, name)]
        eventually(
            "all ended", lambda: not any(map(store.xlen, store.scan_iter("celery:stream:*")))
        )
        assert [job.state for job in jobs] == ["PENDING"] * 4


def test_a_rejected_job_and_one_that_ends_its_process_become_dead_letters(
    start: Callable[..., Any], store: Any
) -> None:
    with start() as (twins, worker):
        rejected = signature(twins, "inline", "reject").delay()
        # The error is stored at once, and is that of a pool.
        jobs = [signature(twins, "stock", "reject").delay(), rejected]
        errors = [job.get(timeout=30, propagate=False) for job in jobs]
        assert [type(error).__name__ for error in errors] == ["Reject", "Reject"]
        eventually("both are dead letters", lambda: store.xlen("celery:dead") == 2)
        assert rejected.id in json.dumps(store.xrange("celery:dead"))
        leaves = signature(twins, "inline", "leave").delay()
        with pytest.raises(Exception, match="delivered 3 times"):
            leaves.get(timeout=30)
        # Other jobs still run inline.
        assert process_of(twins, "inline") == worker


def test_reconnecting_leaves_no_threads_behind(start: Callable[..., Any], store: Any) -> None:
    with start() as (twins, worker):
        assert process_of(twins, "inline") == worker

        def threads() -> int:
            return len([*Path(f"/proc/{worker}/task").iterdir()])

        before = threads()
        for _ in range(3):
            store.client_kill_filter(_type="normal", skipme=True)
            assert process_of(twins, "inline") == worker
        eventually("closed channels' threads end", lambda: threads() <= before)


def test_a_job_beyond_its_hard_limit_ends_its_worker(program: Twins, tmp_path: Path) -> None:
    with run_worker(program, tmp_path / "log", "prefork") as worker:
        signature(program, "inline", "hang").delay()
        worker.wait(40)
    assert worker.returncode == -signal.SIGKILL
    assert "Hard time limit (1s) exceeded" in (tmp_path / "log").read_text()


def test_a_job_that_came_before_is_not_run_again(start: Callable[..., Any], store: Any) -> None:
    with start(TWINS_CONF="{'worker_deduplicate_successful_tasks': True}") as (twins, _):
        job = signature(twins, "inline", "echo", 1).delay()
        assert job.get(timeout=20) == 1
        noted = notes(store, job)
        message = next(iter(_messages(store, twins, job.id)))
        store.xadd("celery:returned:0", {"message": message, "deliveries": 1})
        eventually("it is acknowledged", lambda: store.xlen("celery:returned:0") == 0)
        assert notes(store, job) == noted


def _messages(store: Any, twins: Twins, job_id: str) -> Iterator[str]:
    """Yield a message like that of a finished job."""
    later = signature(twins, "inline", "echo", 1)
    later.apply_async(task_id=job_id, countdown=600)
    for member in store.zrange("celery:delayed", 0, -1):
        envelope = json.loads(member.partition(":")[2])
        envelope["headers"]["eta"] = None
        yield json.dumps(envelope)
    store.delete("celery:delayed")


def test_a_result_that_the_server_cannot_take_at_once_is_stored(
    start: Callable[..., Any], store: Any
) -> None:
    with start() as (twins, _):
        for _ in range(3):
            # The worker has pipelined its next fetch: the error is in the first of two replies.
            store.script_flush()
            job = signature(twins, "inline", "echo", 7).apply_async()

            assert job.get(timeout=20) == 7
            eventually(
                "it is acknowledged",
                lambda: not any(map(store.xlen, store.scan_iter(_type="stream"))),
            )
            assert len([note for note in notes(store, job) if "after_return" in note]) == 1


def test_results_of_another_server_are_stored_there(start: Callable[..., Any], url: str) -> None:
    other = url.removesuffix("/0") + "/1"
    with start(TWINS_RESULTS=other) as (twins, worker), redis.Redis.from_url(other) as results:
        job = signature(twins, "inline", "process").delay()
        stored = eventually("it is stored", lambda: results.get(f"celery-task-meta-{job.id}"))
        assert json.loads(stored)["result"] != worker


def test_many_jobs_are_fetched_and_acked_by_one_command(
    program: Twins, start: Callable[..., Any], store: Any
) -> None:
    # Sent before the worker starts, so that no fetch waits for the sender.
    jobs = [signature(program, "inline", "echo", i).delay() for i in range(2000)]
    store.config_resetstat()
    with start(TWINS_UNHURRIED="1"):
        assert [job.get(timeout=120) for job in jobs] == [*range(2000)]
        calls = store.info("commandstats")
        assert calls["cmdstat_xack"]["calls"] < 100, calls


def test_slow_jobs_among_quick_ones_are_left_to_other_workers(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    with start() as (twins, _), start("-n", "other@%h") as (_, _):
        quick = [signature(twins, "inline", "echo", i).delay() for i in range(500)]
        slow = [signature(twins, "stock", "gated", str(gate), i).delay() for i in range(4)]
        # Two workers of two processes each.
        eventually("all four run at the same time", lambda: len([*gate.iterdir()]) == 4)
        (gate / "open").touch()
        assert [job.get(timeout=60) for job in quick] == [*range(500)]
        assert [job.get(timeout=60) for job in slow] == [*range(4)]


@pytest.mark.parametrize(
    "setting", ["task_acks_on_failure", "task_acks_on_timeout", "task_acks_on_failure_or_timeout"]
)
def test_a_task_that_is_not_acknowledged_when_it_fails_is_the_pools(
    start: Callable[..., Any], store: Any, setting: str
) -> None:
    with start(TWINS_CONF=repr({setting: False})) as (twins, _):
        jobs = [signature(twins, kind, "fail", "no").delay() for kind in ("stock", "inline")]
        for job in jobs:
            with pytest.raises(ValueError, match="no"):
                job.get(timeout=30)
        rejects = setting != "task_acks_on_timeout"
        eventually(
            "they are dead letters", lambda: store.xlen("celery:dead") == (2 if rejects else 0)
        )
