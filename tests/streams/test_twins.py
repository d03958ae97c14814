"""The pool that fetches behaves as Celery's prefork pool, on the same transport."""

import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import chain, chord, group

from tests.support.pairs import (
    POOLS,
    Twins,
    signature,
    worker_of,
)
from tests.support.programs import worker as run_worker
from tests.support.waiting import eventually

#: Tasks, with arguments, that end with a result or an error.
ENDS: list[tuple[str, list[Any]]] = [
    *(
        ("echo", [value])
        for value in (
            None,
            7,
            -(2**70),
            2.5,
            float("inf"),
            "text",
            "ü",
            True,
            [1, [2]],
            {"a": None},
        )
    ),
    *(("fail", ["no"]), ("retry", []), ("child", []), ("slow", []), ("slow_without_end", [])),
    *(("hang", []), ("leave", [3]), ("leave", [None]), ("leave", ["text"]), ("fail_early", ["no"])),
    *(("end", [signal.SIGKILL]), ("end", [signal.SIGTERM]), ("end", [signal.SIGSEGV])),
    *(("end_early", [signal.SIGKILL]), ("early", []), ("limited", [])),
]


def pair(twins: Twins, name: str, *args: Any, **options: Any) -> list[Any]:
    """Send a job to each of the workers, first to ours."""
    return [signature(twins, queue, name, *args).apply_async(**options) for queue in POOLS]


def process_of(twins: Twins, queue: str, **options: Any) -> int:
    """Return the pid of the process that runs a job of one of the workers."""
    job = signature(twins, queue, "process").apply_async(**options)
    return int(job.get(timeout=20))


def known(store: Any, job: Any) -> dict[str, Any]:
    """Return the stored result of a job, without the parts that differ between jobs."""
    stored = json.loads(store.get(f"celery-task-meta-{job.id}"))
    assert stored.pop("task_id") == job.id
    assert datetime.fromisoformat(stored.pop("date_done")).tzinfo == UTC
    return dict(json.loads(_common(json.dumps(_without_frames(stored)))))


def _without_frames(known: dict[str, Any]) -> dict[str, Any]:
    """Return an event or a result without the pool's frames in its traceback."""
    frame = r'  File "(?![^"]*(celery/app|tests/streams)/).*\n(    .*\n)*'
    text = known.get("traceback")
    return {**known, "traceback": re.sub(frame, "", text)} if text else known


def _common(text: str) -> str:
    """Return a text without the names of workers, ids and line numbers."""
    text = re.sub(r"\b(ours|stock)\b", "QUEUE", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r" Job: \d+", "", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?", "TIME", text)
    return re.sub(r"line \d+", "line N", text)


@pytest.mark.parametrize("has_signals", ["", "1"])
def test_results_hooks_and_signals_are_those_of_celery(
    start: Callable[..., Any], store: Any, has_signals: str
) -> None:
    with start(TWINS_SIGNALS=has_signals) as (twins, _):
        pairs = [(name, args, pair(twins, name, *args)) for name, args in ENDS]
        for _, _, jobs in pairs:
            for job in jobs:
                job.get(timeout=60, propagate=False)
        for name, args, (ours, stock) in pairs:
            assert known(store, ours) == known(store, stock), (name, args)
            if name == "hang":  # its process may be killed before it has noted anything
                continue
            settle(store, ours, stock)
            noted = [notes(store, job) for job in (ours, stock)]
            if name == "retry":  # the next try begins while this one ends
                noted = [sorted(each) for each in noted]
            assert noted[0] == noted[1], (name, args)


def settle(store: Any, ours: Any, stock: Any, last: str = "") -> None:
    """Wait for the last notes, which come after the results are stored."""
    eventually(
        f"the same number of notes: {notes(store, ours)} and {notes(store, stock)}",
        lambda: (
            len(notes(store, ours)) == len(notes(store, stock)) > 0
            and last in notes(store, stock)[-1]
        ),
    )


def notes(store: Any, job: Any) -> list[str]:
    """Return the notes of hooks and signals on a job."""
    return [_common(each) for each in store.lrange(f"notes-{job.id}", 0, -1)]


def test_a_task_knows_as_much_of_its_job(start: Callable[..., Any]) -> None:
    with start() as (twins, _):
        ours, stock = [
            json.loads(_common(json.dumps(job.get(timeout=20))))
            for job in pair(twins, "request", 1, priority=3)
        ]
        assert ours == stock


#: Options of a job; a text is the task of a callback.
OPTIONS: list[dict[str, Any]] = [
    {"expires": 60},
    {"time_limit": 30},
    {"soft_time_limit": 30},
    {"link": "echo"},
    {"link_error": "echo"},
    {"compression": "zlib"},
    {"countdown": 0.7},
    {"eta": datetime(2020, 1, 1, tzinfo=UTC)},
    {"shadow": "another"},
    {"headers": {"own": 1}},
    {"argsrepr": "hidden"},
    {"ignore_result": True},
    {"reply_to": "me"},
]


@pytest.mark.parametrize("name", ["request", "fail"])
def test_options_of_a_job_do_the_same(start: Callable[..., Any], store: Any, name: str) -> None:
    with start() as (twins, _):
        pairs = []
        for options in OPTIONS:
            ours, stock = [
                signature(twins, queue, name, "x").apply_async(
                    **{
                        key: signature(twins, queue, value) if value == "echo" else value
                        for key, value in options.items()
                    }
                )
                for queue in POOLS
            ]
            pairs.append((options, ours, stock))
        for options, ours, stock in pairs:
            settle(store, ours, stock, f"after_return {'FAILURE' if name == 'fail' else 'SUCCESS'}")
            assert notes(store, ours) == notes(store, stock), options
            if "ignore_result" in options:
                assert [ours.state, stock.state] == ["PENDING"] * 2
                continue
            values = [job.get(timeout=20, propagate=False) for job in (ours, stock)]
            if "countdown" in options and name == "request":
                assert [value.pop("eta") for value in values] != [None, None]
            assert _common(repr(values[0])) == _common(repr(values[1])), options


def test_chains_chords_and_stamps_run_to_their_ends(start: Callable[..., Any]) -> None:
    with start() as (twins, _):
        ends = []
        for queue in POOLS:
            first, last = (signature(twins, queue, name) for name in ("process", "echo"))
            assert chain(first, last)().get(timeout=20) > 1
            members = group(signature(twins, queue, "process") for _ in range(3))
            assert len(set(members().get(timeout=20))) <= 2
            assert len(chord(members, last.clone())().get(timeout=20)) == 3
            stamped = signature(twins, queue, "request")
            stamped.stamp(mark="m")
            known_of = stamped.apply_async().get(timeout=20)
            ends.append((known_of["stamped_headers"], known_of["stamps"]))
        assert ends == [("['mark']", "{'mark': 'm'}")] * 2


def test_a_receiver_of_a_signal_gets_every_job(start: Callable[..., Any], store: Any) -> None:
    with start(TWINS_RECEIVED="1") as (twins, _):
        for job in pair(twins, "echo", 1):
            assert job.get(timeout=20) == 1
            assert "task_received" in notes(store, job)


#: What differs between the events of two workers.
OWN = {"hostname", "pid", "clock", "timestamp", "local_received", "runtime", "utcoffset"}


def test_events_are_those_of_celery(start: Callable[..., Any]) -> None:
    seen: dict[str, list[dict[str, Any]]] = {}
    clocks: dict[str, list[int]] = {}

    def note(event: dict[str, Any]) -> None:
        if "uuid" in event:
            clocks.setdefault(event["uuid"], []).append(event["clock"])
            own = {key: value for key, value in event.items() if key not in OWN}
            seen.setdefault(event["uuid"], []).append(_without_frames(own))

    def events_of(name: str, job: Any) -> list[str]:
        found = [_common(json.dumps(each, sort_keys=True)) for each in seen.get(job.id, ())]
        if name == "retry":  # the next try begins while this one ends
            return sorted(found)
        if name in {"hang", "slow_without_end"}:  # Celery says twice that a limit is exceeded
            return [event for event, _ in groupby(found)]
        return found

    with start("-E") as (twins, _), twins.app.connection_for_read() as connection:
        receiver = twins.app.events.Receiver(connection, handlers={"*": note})
        listening = Event()
        receiver.on_consume_ready = lambda *_, **__: listening.set()
        thread = Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
        thread.start()
        assert listening.wait(30)
        cases = [*ENDS, ("reject", []), ("ignore", []), ("silent", []), ("fail", ["x" * 200_000])]
        pairs = [(name, args, pair(twins, name, *args)) for name, args in cases]
        # Not plain: Celery's own request sends its events.
        pairs += [(name, [], pair(twins, name, expires=60)) for name in ("retry", "limited")]
        for name, args, jobs in pairs:
            ours, stock = (partial(events_of, name, job) for job in jobs)
            eventually(f"the same events of {name} {args}", lambda: ours() == stock() != [])  # noqa: B023
        waiting = [signature(twins, "ours", "limited").apply_async() for _ in range(30)]
        for job in waiting:  # a process announces it, and another one may run it
            eventually("all its events", lambda: len(seen.get(job.id, ())) == 3)  # noqa: B023
            kinds = [event["type"] for event in seen[job.id]]
            assert kinds == ["task-received", "task-started", "task-succeeded"]
        # Whatever else the workers send of these jobs, they have sent before this job's events.
        barrier = pair(twins, "echo", 0)
        eventually("all events", lambda: all(len(seen.get(job.id, ())) == 3 for job in barrier))
        for name, args, (ours, stock) in pairs:
            assert events_of(name, ours) == events_of(name, stock), (name, args)
            # Monitors sort by it, also what a new process of a worker sends.
            assert max(clocks[ours.id]) < min(clocks[barrier[0].id])
        receiver.should_stop = True
        thread.join(10)


def test_a_revoked_job_does_not_run(start: Callable[..., Any], store: Any) -> None:
    with start() as (twins, _):
        for queue in POOLS:
            job_id = str(uuid4())
            twins.app.control.revoke(job_id, reply=True, timeout=10, limit=len(POOLS))
            job = signature(twins, queue, "echo", 1).apply_async(task_id=job_id)
            eventually("it is revoked", lambda: job.state == "REVOKED")  # noqa: B023
            assert not notes(store, job)


def test_ignored_and_silent_jobs_leave_no_result(start: Callable[..., Any], store: Any) -> None:
    with start() as (twins, _):
        jobs = [job for name in ("ignore", "silent") for job in pair(twins, name)]
        eventually("all ended", lambda: nothing_is_left(store))
        assert [job.state for job in jobs] == ["PENDING"] * 4


def nothing_is_left(store: Any) -> bool:
    """Return True if all messages are acked."""
    return not any(map(store.xlen, store.scan_iter(_type="stream")))


def test_rejected_jobs_are_dead_letters_or_run_again(
    start: Callable[..., Any], store: Any, tmp_path: Path
) -> None:
    with start() as (twins, _):
        jobs = pair(twins, "reject")
        # The error is stored at once, and is that of a pool.
        errors = [job.get(timeout=30, propagate=False) for job in jobs]
        assert [type(error).__name__ for error in errors] == ["Reject", "Reject"]
        for queue, job in zip(POOLS, jobs, strict=True):
            eventually("it is a dead letter", lambda: store.xlen(f"{queue}:dead") == 1)  # noqa: B023
            assert job.id in json.dumps(store.xrange(f"{queue}:dead"))
        for queue in POOLS:
            (tmp_path / queue).mkdir()
            job = signature(twins, queue, "requeue", str(tmp_path / queue)).delay()
            assert job.get(timeout=30) == "again"


def test_reconnecting_leaves_no_threads_behind(start: Callable[..., Any], store: Any) -> None:
    with start() as (twins, worker):
        process = process_of(twins, "ours")

        def threads() -> list[int]:
            return [len([*Path(f"/proc/{pid}/task").iterdir()]) for pid in (worker, process)]

        before = threads()
        for _ in range(3):
            store.client_kill_filter(_type="normal", skipme=True)
            assert process_of(twins, "ours")
        eventually(
            "closed channels' threads end",
            lambda: all(now <= then for now, then in zip(threads(), before, strict=True)),
        )


def test_a_job_that_came_before_is_not_run_again(start: Callable[..., Any], store: Any) -> None:
    with start(TWINS_CONF="{'worker_deduplicate_successful_tasks': True}") as (twins, _):
        for queue in POOLS:
            job = signature(twins, queue, "echo", 1).delay()
            assert job.get(timeout=20) == 1
            settle(store, job, job, "after_return")
            noted = notes(store, job)
            message = next(iter(_messages(store, twins, queue, job.id)))
            store.xadd(f"{queue}:returned:0", {"message": message, "deliveries": 1})
            eventually("it is acknowledged", lambda: nothing_is_left(store))
            assert notes(store, job) == noted


def _messages(store: Any, twins: Twins, queue: str, job_id: str) -> Iterator[str]:
    """Yield a message like that of a finished job."""
    later = signature(twins, queue, "echo", 1)
    later.apply_async(task_id=job_id, countdown=600)
    for member in store.zrange(f"{queue}:delayed", 0, -1):
        envelope = json.loads(member.partition(":")[2])
        envelope["headers"]["eta"] = None
        yield json.dumps(envelope)
    store.delete(f"{queue}:delayed")


def test_a_result_that_the_server_cannot_take_at_once_is_stored(
    start: Callable[..., Any], store: Any
) -> None:
    with start() as (twins, _):
        for _ in range(3):
            # The worker has pipelined its next fetch: the error is in the first of two replies.
            store.script_flush()
            job = signature(twins, "ours", "echo", 7).apply_async()

            assert job.get(timeout=20) == 7
            eventually("it is acknowledged", lambda: nothing_is_left(store))
            eventually(
                "its hooks have run",
                lambda: [note for note in notes(store, job) if "after_return" in note],  # noqa: B023
            )
            assert len([note for note in notes(store, job) if "after_return" in note]) == 1


def test_results_of_another_server_are_stored_there(start: Callable[..., Any], url: str) -> None:
    other = url.removesuffix("/0") + "/1"
    with start(TWINS_RESULTS=other) as (twins, _), redis.Redis.from_url(other) as results:
        for job in pair(twins, "echo", 7):
            key = f"celery-task-meta-{job.id}"
            stored = eventually("it is stored", lambda: results.get(key))  # noqa: B023
            assert json.loads(stored)["result"] == 7


def test_many_jobs_are_fetched_and_acked_by_one_command(
    program: Twins, start: Callable[..., Any], store: Any
) -> None:
    # Sent before the worker starts, so that no fetch waits for the sender.
    jobs = [signature(program, "ours", "echo", i).delay() for i in range(2000)]
    store.config_resetstat()
    with start(TWINS_UNHURRIED="1"):
        assert [job.get(timeout=120) for job in jobs] == [*range(2000)]
        calls = store.info("commandstats")
        assert calls["cmdstat_xack"]["calls"] < 100, calls
        # Maintenance and the idle twin ask for messages, too.
        assert calls["cmdstat_xreadgroup"]["calls"] < 500, calls


def test_slow_jobs_among_quick_ones_run_beside_each_other(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    with start("-c", "4") as (twins, _):
        quick = [signature(twins, "ours", "echo", i).delay() for i in range(500)]
        slow = [signature(twins, "ours", "gated", str(gate), i).delay() for i in range(4)]
        eventually("all four run at the same time", lambda: len([*gate.iterdir()]) == 4)
        (gate / "open").touch()
        assert [job.get(timeout=60) for job in quick] == [*range(500)]
        assert [job.get(timeout=60) for job in slow] == [*range(4)]


def test_a_process_that_is_killed_loses_its_worker_nothing(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    with start() as (twins, worker):
        former = process_of(twins, "ours")
        gated = signature(twins, "ours", "gated", str(tmp_path), 1).delay()
        eventually("it runs", lambda: [*tmp_path.glob("1-*")])
        active = twins.app.control.inspect([f"ours@{socket.gethostname()}"], timeout=10).active()
        ((job,),) = active.values()
        os.kill(job["worker_pid"], signal.SIGKILL)
        eventually("it runs again", lambda: len([*tmp_path.glob("1-*")]) == 2)
        (tmp_path / "open").touch()
        assert gated.get(timeout=20) == 1
        assert former != worker


@pytest.mark.parametrize(
    "setting", ["task_acks_on_failure", "task_acks_on_timeout", "task_acks_on_failure_or_timeout"]
)
@pytest.mark.parametrize("name", ["fail", "slow_without_end", "hang"])
def test_what_fails_is_acked_as_the_settings_say(
    start: Callable[..., Any], store: Any, setting: str, name: str
) -> None:
    with start(TWINS_CONF=repr({setting: False})) as (twins, _):
        jobs = pair(twins, name, *(["no"] if name == "fail" else []))
        errors = [repr(job.get(timeout=30, propagate=False)) for job in jobs]
        assert errors[0] == errors[1]
        eventually(
            "both are acked or dead letters",
            lambda: all(
                not any(store.xlen(f"{queue}:{kind}:0") for kind in ("stream", "returned"))
                for queue in POOLS
            ),
        )
        other = "task_acks_on_failure" if name == "hang" else "task_acks_on_timeout"
        is_rejected = setting != other
        assert [store.xlen(f"{queue}:dead") for queue in POOLS] == [is_rejected] * 2


def test_a_process_is_replaced_after_its_number_of_jobs(start: Callable[..., Any]) -> None:
    with start("--max-tasks-per-child", "3") as (twins, _):
        for queue in POOLS:
            jobs = [signature(twins, queue, "process").delay() for _ in range(20)]
            ran = Counter(job.get(timeout=60) for job in jobs)
            assert max(ran.values()) <= 3, (queue, ran)
            stats = twins.app.control.inspect([worker_of(twins, queue)], timeout=10).stats()
            ((_, known),) = stats.items()
            assert known["total"]["process"] == 20
            assert known["pool"]["max-tasks-per-child"] == 3


def test_a_process_is_replaced_that_takes_too_much_memory(start: Callable[..., Any]) -> None:
    with start("--max-memory-per-child", "150000", "-c", "1") as (twins, _):
        for queue in POOLS:
            before = process_of(twins, queue)
            assert process_of(twins, queue) == before
            grown = signature(twins, queue, "grow", 200_000_000).delay()
            assert grown.get(timeout=30) == before
            assert process_of(twins, queue) != before


def test_autoscale_adds_processes_while_jobs_wait(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    with start("--autoscale", "4,1") as (twins, _):
        for queue in POOLS:
            folder = tmp_path / queue
            folder.mkdir()
            jobs = [signature(twins, queue, "gated", str(folder), i).delay() for i in range(4)]
            eventually("all four run", lambda: len([*folder.iterdir()]) == 4)  # noqa: B023
            (folder / "open").touch()
            assert [job.get(timeout=30) for job in jobs] == [*range(4)]


def test_a_pool_grows_and_shrinks_by_remote_control(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    with start("-c", "1") as (twins, _):
        for queue in POOLS:
            folder, there = tmp_path / queue, [worker_of(twins, queue)]
            folder.mkdir()
            control = twins.app.control
            control.pool_grow(2, destination=there, reply=True, timeout=10)
            jobs = [signature(twins, queue, "gated", str(folder), i).delay() for i in range(4)]
            eventually("three run", lambda: len([*folder.iterdir()]) == 3)  # noqa: B023
            (folder / "open").touch()
            assert [job.get(timeout=30) for job in jobs] == [*range(4)]
            control.pool_shrink(2, destination=there, reply=True, timeout=10)

            def processes() -> set[int]:
                stats = control.inspect(there, timeout=10).stats()  # noqa: B023
                return {*stats[there[0]]["pool"]["processes"]}  # noqa: B023

            eventually("one is left", lambda: len(processes()) == 1)
            assert {process_of(twins, queue) for _ in range(5)} == processes()


@pytest.mark.parametrize("patience", [0, 5])
def test_a_stop_at_once_leaves_its_jobs_to_the_next_worker(
    program: Twins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, patience: int
) -> None:
    """With `worker_soft_shutdown_timeout`, jobs may end within that time."""
    monkeypatch.setenv("TWINS_CONF", repr({"worker_soft_shutdown_timeout": patience}))
    for queue, pool in POOLS.items():
        folder = tmp_path / queue
        (folder / "quick").mkdir(parents=True)
        (folder / "long").mkdir()
        own = ("-Q", queue, "-n", f"{queue}@%h")
        quick, long = (
            signature(program, queue, "gated", str(folder / name), 1).delay()
            for name in ("quick", "long")
        )
        with run_worker(program, tmp_path / f"{queue}.log", pool, *own) as worker:
            eventually("both run", lambda: len([*folder.glob("*/1-*")]) == 2)  # noqa: B023
            worker.send_signal(signal.SIGQUIT)
            log = tmp_path / f"{queue}.log"
            eventually("it stops", lambda: "Hitting Ctrl+C again" in log.read_text())  # noqa: B023
            (folder / "quick" / "open").touch()
            worker.wait(30)
        assert quick.ready() is bool(patience), queue
        with run_worker(program, tmp_path / f"{queue}.log", pool, *own):
            (folder / "long" / "open").touch()
            assert [job.get(timeout=30) for job in (quick, long)] == [1, 1]
        ran = [len([*(folder / name).glob("1-*")]) for name in ("quick", "long")]
        assert ran == [1 if patience else 2, 2], queue
