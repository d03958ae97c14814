"""Calls that travel in bundles end as they would as jobs, whatever the others of the bundle do."""

import _thread
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from callers import batch
from callers.bundling import Bundling
from callers.client import Client
from celery_streams import bundles
from cluster.errors import JobTimeout
from tests.local import bundled_tasks
from tests.support.local import Local
from tests.support.waiting import eventually

MODULE = bundled_tasks.__name__


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A server, and a worker with these tasks."""
    local = Local(tmp_path_factory.mktemp("bundles"), "--server-only")
    try:
        local.wait_until_ready()
        with local.own_worker("tests.local.bundling_worker", ADD_CONCURRENCY="2") as worker:
            yield local
            assert worker.poll() is None, "the worker itself ended"
    finally:
        local.stop()


@pytest.fixture
def client(local: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client whose calls are all in one bundle; it knows the tasks' queue."""
    monkeypatch.setattr(Bundling, "parts", all_at_once)
    monkeypatch.setattr(Bundling, "waits", lambda *_: False)
    begin = batch.BatchRun.__init__

    def begin_with_all(run: Any, *args: Any, **options: Any) -> None:
        begin(run, *args, **options)
        run._size = 500

    monkeypatch.setattr(batch.BatchRun, "__init__", begin_with_all)
    with local.client() as client:
        routes = client.app.conf.task_routes
        client.app.conf.task_routes = [bundled_tasks.ROUTES, *routes]
        yield client


def all_at_once(bundling: Bundling, rows: Any) -> list[Any]:
    """Divide no rows, if they are bundled at all."""
    return [rows] if bundling._most > 1 else [[row] for row in rows]


@pytest.fixture
def sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tasks of which the client sends jobs in batches."""
    names: list[str] = []
    send_batch = client.app.submission.send_batch

    def note(name: str, jobs: Any, *args: Any, **options: Any) -> Any:
        names.extend([name] * len(jobs))
        return send_batch(name, jobs, *args, **options)

    monkeypatch.setattr(client.app.submission, "send_batch", note)
    return names


def brief(value: Any) -> str:
    """Return what identifies a value or an error."""
    text = hex(value) if type(value) is int else str(value)
    return f"{type(value).__name__}: {text[:200]}"


def alone(client: Client, task: str, *args: Any) -> str:
    """Return the outcome of a call as a job of its own."""
    try:
        return brief(client.call(f"{MODULE}.{task}", *args, timeout=60))
    except Exception as error:  # noqa: BLE001 - it is compared
        return brief(error)


@pytest.mark.parametrize("kind", bundled_tasks.KINDS)
def test_a_call_ends_as_it_would_alone_and_spoils_no_other(
    client: Client, sent: list[str], kind: str
) -> None:
    expected = without_ids(alone(client, "do", kind))
    sent.clear()
    rows = [("value", 1), ("value", 2), (kind,), ("value", 3), ("value", None), ("value", [4])]
    values = client.map(f"{MODULE}.do", rows, timeout=90)

    assert sent == [bundles.NAME]
    assert [*values[:2], *values[3:]] == [1, 2, 3, None, [4]]
    assert without_ids(brief(values[2])) == expected
    # The worker runs other jobs.
    assert client.map(f"{MODULE}.do", [("value", i) for i in range(50)]) == [*range(50)]


def without_ids(text: str) -> str:
    """Return a text without addresses of objects."""
    return text.partition(" at 0x")[0]


def test_arguments_that_a_task_does_not_take_fail_their_call(client: Client) -> None:
    rows: list[Any] = [("value", 1), (), ("value", 1, 2), ("value", 2)]
    first, *wrong, last = client.map(f"{MODULE}.do", rows)

    assert (first, last) == (1, 2)
    assert [type(each) for each in wrong] == [TypeError] * 2
    assert "do() missing 1 required positional argument" in str(wrong[0])


def test_a_soft_limit_is_each_calls(client: Client) -> None:
    values = client.map(f"{MODULE}.sleep_softly", [(0.4,), (0.4,), (0.4,), (3,), (0,)])

    assert values[:3] == [0.4] * 3
    assert brief(values[3]) == alone(client, "sleep_softly", 3)
    assert values[4] == 0


def test_a_hard_limit_is_each_calls(client: Client) -> None:
    values = client.map(f"{MODULE}.compute", [(1,), (2,), ("block",), (3,)])

    assert brief(values.pop(2)) == alone(client, "compute", "block")
    assert values == [1, 2, 3]


def test_calls_behind_a_long_one_do_not_wait_for_it(client: Client) -> None:
    rows = [(0,), (8,), *[(0,)] * 8]
    first, late, *others = client.imap(f"{MODULE}.sleep", rows, timeout=3)

    assert type(late) is JobTimeout
    assert {type(each) for each in others} == {int}
    assert first not in others  # the other process made them
    eventually("the long one ends", lambda: len({*client.map(f"{MODULE}.sleep", [(0.1,)] * 9)}) > 1)


def test_a_bundle_that_takes_long_is_divided(client: Client) -> None:
    processes = Counter(client.map(f"{MODULE}.sleep", [(0.05,)] * 40))

    assert len(processes) == 2
    assert min(processes.values()) > 5


def test_what_is_not_plain_is_a_job_of_its_own(client: Client, tmp_path: Path) -> None:
    ids = client.map(f"{MODULE}.own_id", [()] * 5)
    assert len({*ids}) == 5
    assert {each.rpartition("-")[2] for each in ids} == {*"01234"}
    began = monotonic()
    assert client.map(f"{MODULE}.limited", [(i,) for i in range(30)]) == [*range(30)]
    assert monotonic() - began > 0.9
    rows = [(str(tmp_path), i) for i in range(5)]
    assert client.map(f"{MODULE}.fail_once", rows) == [*range(5)]
    assert client.map(f"{MODULE}.calls_directly", [(0,), (1,), (2,)]) == [0, 3 + 1j, 3 + 1j]


def test_a_value_is_what_it_was_when_its_call_ended(client: Client) -> None:
    values = client.map(f"{MODULE}.remember", [(i,) for i in range(4)])

    assert values == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


def test_each_call_is_made_once(client: Client, tmp_path: Path) -> None:
    rows = [(str(tmp_path), i) for i in range(1000)]
    assert client.map(f"{MODULE}.count_up", rows) == [*range(1000)]

    runs = (tmp_path / "runs").read_text().split()
    assert sorted(map(int, runs)) == [*range(1000)]


def test_a_call_that_leaves_no_result_is_late(client: Client) -> None:
    assert [type(each) for each in client.map(f"{MODULE}.ignore", [()] * 3, timeout=1)] == [
        JobTimeout
    ] * 3


def test_a_task_that_the_worker_lacks_fails_each_call(client: Client) -> None:
    client.app.conf.task_routes = [
        {"add.tasks.of_old": {"queue": "add"}},
        *client.app.conf.task_routes,
    ]
    values = client.map("add.tasks.of_old", [(i,) for i in range(3)])

    assert [brief(each) for each in values] == ["NotRegistered: 'add.tasks.of_old'"] * 3


def test_a_bundle_that_has_not_begun_when_the_caller_stops_never_runs(
    client: Client, tmp_path: Path
) -> None:
    busy = [client.submit(f"{MODULE}.sleep", 6) for _ in range(2)]
    eventually("both processes are busy", lambda: all(job.state == "STARTED" for job in busy))
    rows = [(str(tmp_path), i) for i in range(5)]
    values: Any = client.imap(f"{MODULE}.count_up", rows)
    interrupt = threading.Timer(0.3, _thread.interrupt_main)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        next(values)
    for job in busy:
        job.get(timeout=30)
    client.call(f"{MODULE}.do", "value")

    assert not (tmp_path / "runs").exists()


def test_nothing_is_left_in_redis(client: Client) -> None:
    store: Any = client.app.backend

    def keys() -> set[bytes]:
        return {*store.client.scan_iter("celery-task-meta-*")}

    before = keys()
    client.map(f"{MODULE}.do", [("value", 1), ("error",), ("complex",), ("value", 2)])

    eventually("the results are removed", lambda: keys() <= before)


def test_calls_are_jobs_if_the_caller_wants_that(client: Client, sent: list[str]) -> None:
    rows = [("value", i) for i in range(20)]
    task = f"{MODULE}.do"

    assert client.map(task, rows, bundle=False) == [*range(20)]
    assert [*client.imap(task, rows, bundle=False)] == [*range(20)]
    assert {*sent} == {task}
    jobs = client.submit_many(task, rows)
    assert len({job.id for job in jobs}) == 20
    assert [client.get(job) for job in jobs] == [*range(20)]
    assert client.submit_many(task, []) == []
    with pytest.raises(TypeError, match=r"a job's arguments are a tuple, such as \(4, 6\), not 7"):
        client.submit_many(task, [("value", 1), 7])  # type: ignore[list-item]
