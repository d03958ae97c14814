"""Many jobs of one task: in order, in bounded memory, and none that nobody waits for any more."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, islice
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from celery.states import REVOKED, SUCCESS
from celery.utils import uuid

from callers import batch, bundling
from callers.bundling import Bundling
from callers.client import Client
from celery_streams.producer.sender import Sender
from celery_streams.results import waiters
from cluster.errors import JobTimeout, QueueFull, UnknownTask, Unreachable
from cluster.values.codec import pack
from local.server import ROOT
from tests.support.bundling import no_bundles
from tests.support.local import Local
from tests.support.waiting import eventually

ADD = "add.tasks.add"
SLOW = "add.tasks.longtime_add"


def redis(client: Client) -> Any:
    """Return the plain client of a client's server."""
    store: Any = client.app.backend
    return store.client


@pytest.fixture
def jobs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is a job of its own."""
    monkeypatch.setattr(Bundling, "__init__", no_bundles)


def results(client: Client) -> set[str]:
    """Return the keys of all results and large values."""
    found = redis(client).scan_iter("celery-task-meta-*"), redis(client).scan_iter("celery-blob-*")
    return {key for keys in found for key in keys}


# Values ----------------------------------------------------------------------------------


def test_values_come_in_order(client: Client) -> None:
    rows = [(i, i) for i in range(1200)]

    assert [*client.imap(ADD, rows)] == [2 * i for i in range(1200)]


@pytest.mark.parametrize("bundle", [True, False])
def test_refused_rows_have_their_places_among_the_others(client: Client, bundle: bool) -> None:
    rows = [(i, i) if i % 3 else (i, "x") for i in range(1200)]
    values = [*client.imap(ADD, rows, window=100, bundle=bundle)]

    assert [value if i % 3 else str(value) for i, value in enumerate(values)] == [
        2 * i if i % 3 else "y must be a number, not 'x'" for i in range(1200)
    ]


def test_refused_rows_are_yielded_while_no_other_comes(client: Client) -> None:
    values = client.imap(ADD, ((i, "x") for i in count()))

    assert {str(next(values)) for _ in range(3000)} == {"y must be a number, not 'x'"}
    values.close()  # type: ignore[attr-defined]  # it is a generator


def test_nothing_is_left_in_redis(client: Client) -> None:
    before = results(client)
    values = client.map(ADD, [(i, 2**600_000) for i in range(3)] + [(1, 1), (10**400, 0.5)])

    assert values[:4] == [2**600_000, 1 + 2**600_000, 2 + 2**600_000, 2]
    eventually("the arguments are removed", lambda: results(client) <= before)


def test_large_values_that_are_taken_late_are_not_lost(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    for module in ("batch", "client"):
        monkeypatch.setattr(f"callers.{module}.monotonic", lambda: monotonic() + ahead)
    before = results(client)
    # The first one takes so long that the others are submitted meanwhile.
    rows = [(i, 2**600_000, 0 if i else 1) for i in range(3)]
    values = client.imap(SLOW, rows, timeout=30)
    assert next(values) == 2**600_000
    eventually("the others have ended", lambda: len(results(client) - before) >= 4)
    ahead = 100.0  # the program was busy for longer than the jobs may take

    assert [*values] == [1 + 2**600_000, 2 + 2**600_000]


def test_what_is_wrong_with_one_job_stands_in_its_place(client: Client) -> None:
    rows: list[Any] = [(1, 1), ("one", 1), (object(), 1), (1,), (2, 2), (3, 1j), (10**5000, 1)]
    values = client.map(ADD, [*rows, (10**400, 0.5)])

    assert values[0::4] == [2, 4]
    assert values[5:7] == [3 + 1j, 10**5000 + 1]
    assert isinstance(values[7], OverflowError)
    texts = [f"{type(each).__name__}: {each}" for each in values[1:4]]
    assert texts[0] == "TypeError: x must be a number, not 'one'"
    assert "object is not JSON serializable" in texts[1]
    assert texts[2].startswith("TypeError: add() missing")


@pytest.mark.parametrize("bundle", [True, False])
def test_wrong_rows_are_not_sent_and_hold_up_no_others(
    client: Client, monkeypatch: pytest.MonkeyPatch, *, bundle: bool
) -> None:
    sent: list[Any] = []
    send_batch = client.app.submission.send_batch

    def note(name: str, jobs: Any, *args: Any, **options: Any) -> Any:
        for row in jobs.values():
            sent.extend([row] if name == ADD else row[0])
        return send_batch(name, jobs, *args, **options)

    client.call(ADD, 4, 6)  # makes the template
    monkeypatch.setattr(client.app.submission, "send_batch", note)
    rows: list[Any] = [("x", i) if i % 7 in {0, 3, 4} else (i, i) for i in range(500)]
    expected = [2 * i if type(x) is int else "x must be a number, not 'x'" for x, i in rows]

    for values in (
        client.map(ADD, rows, bundle=bundle),
        client.imap(ADD, rows, window=3, bundle=bundle),
    ):
        assert [str(v) if isinstance(v, TypeError) else v for v in values] == expected
    assert sent == [row for row in rows if type(row[0]) is int] * 2
    assert {str(each) for each in client.map(ADD, [("x", 1)] * 50)} == {expected[0]}


@pytest.mark.parametrize("row", [7, "46", {"x": 4}, {4, 6}, range(2)], ids=repr)
def test_rows_that_are_no_tuples_are_the_callers_error(client: Client, row: Any) -> None:
    with pytest.raises(TypeError, match=r"a job's arguments are a tuple, such as \(4, 6\), not "):
        client.map(ADD, [(1, 1), row])
    with pytest.raises(TypeError, match="not "):
        next(client.imap(ADD, [row]))


def test_a_job_that_is_late_stands_in_its_place(client: Client) -> None:
    values = [*client.imap(SLOW, [(1, 1, 0), (2, 2, 3), (3, 3, 0)], timeout=1.5)]

    assert [values[0], values[2]] == [2, 6]
    assert isinstance(values[1], JobTimeout)
    assert "still runs on add@" in str(values[1])


def test_map_ends_at_its_deadline(client: Client) -> None:
    values = client.map(SLOW, [(1, 1, 0), (2, 2, 3), (3, 3, 3)], timeout=1.5)

    assert values[0] == 2
    assert [type(each) for each in values[1:]] == [JobTimeout] * 2


def test_arguments_are_taken_as_values_are_given(client: Client) -> None:
    taken = count()
    rows = ((next(taken), 0) for _ in count())
    values = client.imap(ADD, rows, window=10)

    assert [*islice(values, 35)] == [*range(35)]
    assert 35 < next(taken) <= 35 + 10 + 1
    values.close()  # type: ignore[attr-defined]


def test_arguments_that_come_slowly_keep_no_job_waiting(client: Client) -> None:
    began = threading.Event()

    def rows() -> Iterator[tuple[int, int]]:
        yield 1, 1
        yield 2, 2
        # What was taken before is submitted by now, and its worker has an answer.
        eventually("a job ends", lambda: results(client) - before)
        began.set()
        yield 3, 3

    before = results(client)

    assert client.map(ADD, rows()) == [2, 4, 6]
    assert began.is_set()


@pytest.mark.usefixtures("jobs_alone")
def test_batches_grow_only_while_arguments_come_at_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    publish = Sender.publish

    def note(self: Sender, key: str, most: int, messages: Any) -> None:
        sent.append(len(messages))
        publish(self, key, most, messages)

    client.call(ADD, 1, 1)
    monkeypatch.setattr(Sender, "publish", note)
    for patience in (inf, 0.0):
        monkeypatch.setattr(batch, "ARGUMENTS_TIME", patience)
        client.map(ADD, [(i, i) for i in range(20)])

    assert sent == [1, 2, 4, 8, 5] + [1] * 20


def test_threads_map_at_once(client: Client) -> None:
    def work(number: int) -> list[Any]:
        return client.map(ADD, [(number, i) for i in range(100)])

    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(work, range(8))]

    assert found == [[number + i for i in range(100)] for number in range(8)]


ON_LISTS = f"""
from callers.client import Client
with Client() as client:
    print(client.map({ADD!r}, [(i, i) for i in range(5)]))
    print([*client.imap({ADD!r}, ((i, 0) for i in range(5)), window=2)])
    print(*{{*client.app.submission._templates.values()}})
"""


def test_kombus_lists_do_it_too(tmp_path: Path) -> None:
    local = Local(tmp_path, REDIS_TRANSPORT="lists")
    try:
        local.wait_until_ready()
        run = subprocess.run(
            [sys.executable, "-c", ON_LISTS],
            cwd=ROOT,
            env=local.env,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        local.stop()

    assert run.stdout.splitlines() == ["[0, 2, 4, 6, 8]", "[0, 1, 2, 3, 4]", "None"], run.stderr


# What is wrong with all -------------------------------------------------------------------


def test_a_wrong_name_is_said_before_any_argument_is_taken(client: Client) -> None:
    rows = iter([(1, 1)])
    with pytest.raises(UnknownTask):
        client.imap("add.tasks.ad", rows)
    windows: list[Any] = [0, -1, 1.5, "a", None, True]
    for window in windows:
        with pytest.raises(ValueError, match="window must be"):
            client.imap(ADD, rows, window=window)
    with pytest.raises(ValueError, match="timeout must be"):
        client.imap(ADD, rows, timeout=0)

    assert next(rows) == (1, 1)


def test_a_full_queue_is_raised(server_only: Local) -> None:
    with server_only.client() as client:
        options = client.app.conf.broker_transport_options
        client.app.conf.broker_transport_options = {**options, "queue_max_length": 100}
        with pytest.raises(QueueFull, match="holds 100 messages"):
            client.map(ADD, [(1, 1)] * 200)


def test_a_broker_that_goes_away_is_raised(server_only: Local) -> None:
    def rows() -> Iterator[tuple[int, int]]:
        yield 1, 1
        redis(client).shutdown(nosave=True)
        yield 2, 2

    with server_only.client() as client, pytest.raises(Unreachable, match="cannot reach"):
        client.map(ADD, rows(), timeout=5)


def test_lost_connections_lose_no_job(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = Sender.publish

    def publish_and_cut(self: Sender, key: str, most: int, messages: Any) -> None:
        publish(self, key, most, messages)
        for kind in ("pubsub", "normal"):  # workers' connections, too
            redis(client).client_kill_filter(_type=kind, skipme=True)

    monkeypatch.setattr(Sender, "publish", publish_and_cut)

    assert client.map(ADD, [(i, i) for i in range(300)]) == [2 * i for i in range(300)]


# Notices ----------------------------------------------------------------------------------


def meta(job_id: str, value: Any) -> dict[str, Any]:
    """Return what a worker stores of a job."""
    return {
        "status": SUCCESS,
        "result": value,
        "traceback": None,
        "children": [],
        "date_done": "2026-11-21T22:00:00+00:00",
        "task_id": job_id,
    }


@pytest.mark.parametrize("value", [7, "x", 2**70, 1j, [inf], 10**5000], ids=type)
def test_one_notice_tells_of_several_jobs(server_only: Local, value: Any) -> None:
    with server_only.client() as client:
        store: Any = client.app.backend
        batch = store.result_consumer.batch(1)
        wait = batch.__enter__()
        ids = [uuid() for _ in range(3)]
        wait.expect(ids)
        others = [client.submit(ADD, 1, 1) for _ in range(2)]
        store.add_pending_results(others)
        told = [meta(each, value) for each in ids] + [meta(each.id, value) for each in others]
        payload = store.encode(pack(told))
        redis(client).publish(store.channel_of(client.app.thread_oid), payload)
        with ExitStack() as stack:
            stack.push(batch)
            assert store.result_consumer.wait(wait, inf)
            found = {each["task_id"]: each["result"] for each in wait.ended}

        assert found == dict.fromkeys(ids, value)
        # Nothing is stored: they know it by the notice.
        assert [each.get(timeout=5) for each in others] == [value] * 2


@pytest.mark.parametrize("notice", [b"[", b"[1]", b"[{}]", b"\xff", b"{}", b"[NaN", b"null"])
def test_a_notice_that_cannot_be_read_ends_no_wait(server_only: Local, notice: bytes) -> None:
    with server_only.client() as client:
        store: Any = client.app.backend
        with store.result_consumer.batch(1) as wait:
            wait.expect(["a-job"])
            redis(client).set("celery-task-meta-a-job", store.encode(meta("a-job", 7)))
            redis(client).publish(store.channel_of(client.app.thread_oid), notice)

            assert store.result_consumer.wait(wait, inf)
            assert wait.ended[0]["result"] == 7


def test_a_job_that_nobody_announces_is_found(server_only: Local) -> None:
    with server_only.client() as client:
        store: Any = client.app.backend
        with store.result_consumer.batch(1) as wait:
            wait.expect(["a-job", "another"])
            redis(client).set("celery-task-meta-a-job", store.encode(meta("a-job", 7)))
            redis(client).set("celery-task-meta-another", "no result")

            assert store.result_consumer.wait(wait, inf)
            first, second = wait.ended
            assert first["result"] == 7
            assert "cannot be read" in str(second["result"])


# To stop ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("jobs_alone")
def test_what_has_not_begun_when_the_caller_stops_never_runs(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []
    expect = waiters.BatchWaiter.expect

    def note(self: waiters.BatchWaiter, job_ids: Any) -> None:
        ids.extend(job_ids)
        expect(self, job_ids)

    monkeypatch.setattr(waiters.BatchWaiter, "expect", note)
    values: Any = client.imap(SLOW, [(1, 1, 1)] * 13)
    assert next(values) == 2
    values.close()

    assert_revoked(client, ids)


def assert_revoked(client: Client, ids: list[str]) -> None:
    """Assert that of thirteen jobs, of which four run at a time, no more than eight ran."""
    jobs: list[Any] = [client.app.AsyncResult(each) for each in ids]
    # The first one's result may be gone, for it was given.
    eventually("all end", lambda: all(job.ready() for job in jobs[1:]))
    states = [job.state for job in jobs]
    assert len(states) == 13
    assert states.count(REVOKED) >= 13 - 8, states


STOPPED = f"""
from callers.client import Client
from celery_streams.results.consumer import ResultConsumer
from tests.support.bundling import no_bundles
from callers.bundling import Bundling
Bundling.__init__ = no_bundles
client = Client()
wait = ResultConsumer.wait
def report(self, waiter, until):  # all are submitted
    print(*waiter.open, flush=True)
    return wait(self, waiter, until)
ResultConsumer.wait = report
client.map({SLOW!r}, [(1, 1, 1)] * 13)
"""


def test_ctrl_c_leaves_nothing_to_run(local: Local, client: Client) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        cwd=ROOT,
        env=local.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stderr
        ids = child.stdout.readline().split()
        child.send_signal(signal.SIGINT)
        error = child.stderr.read()

    assert child.returncode == -signal.SIGINT
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert error.count("Traceback") == 1
    assert_revoked(client, ids)


def test_a_server_that_stalls_for_a_moment_ends_no_call(
    server_only: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "FIRST_SECONDS", 0.4)  # the caller looks then
    with server_only.client() as client, server_only.own_worker("local", "worker", "add"):
        assert client.call(ADD, 1, 1) == 2
        (server,) = server_only.running("server")
        timers = [
            threading.Timer(0.2, os.kill, (server.pid, signal.SIGSTOP)),
            threading.Timer(1.0, os.kill, (server.pid, signal.SIGCONT)),
        ]
        for timer in timers:
            timer.start()

        assert client.map(SLOW, [(i, i, 1.5) for i in range(12)]) == [2 * i for i in range(12)]
