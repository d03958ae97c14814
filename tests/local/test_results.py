"""The result store without workers: transitions of states, and waiting for results."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from zlib import compress

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import GroupResult, ResultSet
from celery.utils import uuid
from redis.exceptions import AuthenticationError

from celery_streams.errors import Unreadable
from celery_streams.results import consumer
from celery_streams.results.states import Transition
from celery_streams.results.waiters import ResultWaiter
from celery_streams.scripts import MAX_NOTICE_BYTES
from tests.support.store import Proxy, Store, calls, soon
from tests.support.waiting import eventually

#: Timeout of a wait that is expected to succeed, in seconds.
DEADLINE = 30
#: Limit for a wait that must not run into its deadline, in seconds.
IN_TIME = 20
#: A poll interval that no test reaches, in seconds.
NO_POLLS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that tests share."""
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.stop()


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[Store]:
    """A store for one test."""
    store = Store(tmp_path)
    yield store
    store.stop()


@pytest.fixture
def app(store: Store) -> Iterator["Celery[Any]"]:
    """A program that waits for results."""
    app = store.program()
    yield app
    backend: Any = app.backend
    backend.result_consumer.stop()


@pytest.fixture
def proxy(store: Store) -> Iterator[Proxy]:
    """A proxy of the shared store that can go silent."""
    proxy = Proxy(store.port)
    yield proxy
    proxy.close()


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a notice reports the end of a job before the deadline."""
    monkeypatch.setattr(consumer, "INTERVAL", NO_POLLS)


def send(app: Any, count: int = 1) -> list[Any]:
    """Send jobs that no worker runs."""
    return [app.send_task("any.task", queue="unused") for _ in range(count)]


def listen(store: Store, app: Any) -> None:
    """Make a program subscribe, so that the results of its next jobs are announced to it."""
    (job,) = send(app)
    oid = app.thread_oid  # of this thread, not of the timer's
    channel = app.backend.channel_of(oid)

    def end() -> None:
        eventually("it subscribes", lambda: store.redis().pubsub_numsub(channel)[0][1])
        store.ends(job, 0, "SUCCESS", oid)

    with soon(end, seconds=0):
        job.get(timeout=DEADLINE)


def seconds(function: Any, *args: Any, **options: Any) -> tuple[Any, float]:
    """Return a function's value, or its error, and the seconds it took."""
    start = monotonic()
    try:
        value = function(*args, **options)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        value = error
    return value, monotonic() - start


# Storing -------------------------------------------------------------------------

STATES = ("PENDING", "STARTED", "RETRY", "PROGRESS", "SUCCESS", "FAILURE", "REVOKED")
REPLACES = {
    "SUCCESS": {"SUCCESS": False},
    "FAILURE": {"SUCCESS": False, "REVOKED": False},
    "REVOKED": {"SUCCESS": False},
}
ENDED = {"SUCCESS": False, "FAILURE": False, "REVOKED": False}
FORMATS: dict[str, dict[str, Any]] = {
    "json": {},
    "compressed": {"result_compression": "zlib"},
    "pickle": {"result_serializer": "pickle", "result_accept_content": ["pickle"]},
}


def value_of(state: str) -> Any:
    """Return a value that may be stored with a state."""
    return ValueError(state) if state in {"FAILURE", "REVOKED", "RETRY"} else state


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("old", STATES)
@pytest.mark.parametrize("new", STATES)
def test_a_state_replaces_what_it_may_and_nothing_else(
    store: Store, form: str, old: str, new: str
) -> None:
    app = store.program(**FORMATS[form])
    job = app.AsyncResult(uuid())
    job.backend.store_result(job.id, value_of(old), old)
    job.backend.store_result(job.id, value_of(new), new)

    may = REPLACES.get(new, ENDED).get(old, True)
    assert job.state == (new if may else old)


@pytest.mark.parametrize("old", STATES)
def test_started_by_an_observer_replaces_no_later_state(store: Store, old: str) -> None:
    app = store.program()
    backend: Any = app.backend
    job = app.AsyncResult(uuid())
    backend.store_result(job.id, value_of(old), old)
    payload = backend.payload(job.id, {"pid": 1}, "STARTED")
    is_stored = backend.write(
        job.id,
        payload,
        60,
        None,
        Transition("STARTED", only=frozenset({"PENDING", "RETRY", "STARTED"})),
    )

    may = old in {"PENDING", "STARTED", "RETRY"}
    assert is_stored == may
    assert job.state == ("STARTED" if may else old)


def test_a_result_takes_one_command(store: Store) -> None:
    store.ends(uuid())  # the script is known to the server
    called = calls(store.redis())
    store.ends(uuid(), 10, sender="a sender")

    assert called() == {"evalsha": 1, "getrange": 1, "set": 1, "publish": 2}


def test_a_result_expires(store: Store) -> None:
    app = store.program(result_expires=100, result_failure_expires=1000)
    backend: Any = app.backend
    backend.store_result("well", 1, "SUCCESS")
    backend.store_result("ill", ValueError(), "FAILURE")

    assert 90 < store.redis().ttl("celery-task-meta-well") <= 100
    assert 900 < store.redis().ttl("celery-task-meta-ill") <= 1000


def test_a_script_that_the_server_forgot_is_no_error(store: Store) -> None:
    store.ends(uuid())
    store.redis().script_flush()
    job = store.program().AsyncResult(uuid())
    store.ends(job, 7)

    assert job.get(timeout=DEADLINE) == 7


def test_a_stock_program_is_woken_and_reads_the_result(store: Store) -> None:
    backend = f"celery.backends.redis:RedisBackend+{store.url()}"
    stock: Celery[Any] = Celery(backend=backend, set_as_current=False)
    job = stock.AsyncResult(uuid())
    with soon(store.ends, job, 7):
        assert job.get(timeout=DEADLINE) == 7


# Notices ---------------------------------------------------------------------------


@pytest.mark.usefixtures("no_polls")
@pytest.mark.parametrize("size", [1, 2 * MAX_NOTICE_BYTES])
def test_a_sender_is_notified_at_once(store: Store, app: Any, size: int) -> None:
    for _ in range(3):
        (job,) = send(app)
        with soon(store.ends, job, "x" * size, "SUCCESS", app.thread_oid):
            value, took = seconds(job.get, timeout=DEADLINE)

        assert len(value) == size
        assert took < IN_TIME


@pytest.mark.usefixtures("no_polls")
def test_a_program_that_did_not_send_a_job_is_notified_at_once(store: Store, app: Any) -> None:
    for _ in range(3):
        job = app.AsyncResult(uuid())
        with soon(store.ends, job, 7):
            value, took = seconds(job.get, timeout=DEADLINE)

        assert value == 7
        assert took < IN_TIME


def test_an_error_and_a_custom_state_are_passed_on(store: Store, app: Any) -> None:
    (job,) = send(app)
    received: list[Any] = []

    def on_message(meta: Any) -> None:
        received.append(meta)
        if meta["status"] == "PROGRESS":
            store.ends(job, ValueError("no"), "FAILURE", app.thread_oid)

    with (
        soon(store.ends, job, {"done": 50}, "PROGRESS", app.thread_oid),
        pytest.raises(ValueError, match="no"),
    ):
        job.get(timeout=DEADLINE, on_message=on_message)

    assert [meta["status"] for meta in received] == ["PROGRESS", "FAILURE"]
    assert received[0]["result"] == {"done": 50}


@pytest.mark.usefixtures("no_polls")
def test_a_thousand_jobs_take_no_subscription_and_no_read(store: Store, app: Any) -> None:
    listen(store, app)
    called = calls(store.redis())
    jobs = send(app, 1000)
    for number, job in enumerate(jobs):
        store.ends(job, number, "SUCCESS", app.thread_oid)

    assert [job.get(timeout=DEADLINE) for job in jobs] == [*range(1000)]
    counts = called()
    assert not counts.keys() & {"subscribe", "get", "mget"}, counts
    assert counts["evalsha"] == 1000


def test_no_channel_is_of_a_job(store: Store, app: Any) -> None:
    for job in (app.AsyncResult(uuid()), *send(app)):
        with soon(store.ends, job, seconds=0.1):
            job.get(timeout=DEADLINE)

        assert store.redis().pubsub_channels() == [app.backend.channel_of(app.thread_oid)]


@pytest.mark.usefixtures("no_polls")
def test_a_result_that_was_announced_before_it_is_asked_for_is_there(
    store: Store, app: Any
) -> None:
    listen(store, app)
    for size in (1, 2 * MAX_NOTICE_BYTES):
        early, late = send(app, 2)
        with (
            soon(store.ends, early, "x" * size, "SUCCESS", app.thread_oid, seconds=0.1),
            soon(store.ends, late, 2, "SUCCESS", app.thread_oid),
        ):
            late.get(timeout=DEADLINE)
        value, took = seconds(early.get, timeout=DEADLINE)

        assert len(value) == size
        assert took < IN_TIME


def test_results_that_were_announced_one_after_the_other_are_not_read(
    store: Store, app: Any
) -> None:
    listen(store, app)
    jobs = send(app, 100)
    for number, job in enumerate(jobs):
        store.ends(job, number, "SUCCESS", app.thread_oid)
    called = calls(store.redis())

    assert [job.get(timeout=DEADLINE) for job in reversed(jobs)] == [*reversed(range(100))]
    assert not called()


def test_a_message_of_what_was_announced_early_is_passed_on(store: Store, app: Any) -> None:
    listen(store, app)
    first, second = send(app, 2)
    for job in (first, second):
        store.ends(job, 7, "SUCCESS", app.thread_oid)
    second.get(timeout=DEADLINE)
    received: list[Any] = []

    assert first.get(timeout=DEADLINE, on_message=received.append) == 7
    assert [meta["result"] for meta in received] == [7]


def test_a_failure_that_was_announced_early_is_read(store: Store, app: Any) -> None:
    listen(store, app)
    first, second = send(app, 2)
    store.ends(first, ValueError("an early one"), "FAILURE", app.thread_oid)
    store.ends(second, 2, "SUCCESS", app.thread_oid)
    assert second.get(timeout=DEADLINE) == 2
    # As a dead letter is replayed: a failure may be replaced.
    store.ends(first, 1, "SUCCESS")

    assert first.get(timeout=DEADLINE) == 1


@pytest.mark.usefixtures("no_polls")
def test_what_was_announced_to_a_lost_connection_is_read_with_the_next(
    store: Store, app: Any
) -> None:
    listen(store, app)
    jobs = send(app, 2)
    store.redis().execute_command("CLIENT KILL SKIPME yes")
    for job in jobs:
        store.ends(job, 7, "SUCCESS", app.thread_oid)
    for job in jobs:
        value, took = seconds(job.get, timeout=DEADLINE)

        assert value == 7
        assert took < IN_TIME


def test_callbacks_are_called_while_another_result_is_waited_for(store: Store, app: Any) -> None:
    called: list[str] = []
    (sent,) = send(app)
    foreign = app.AsyncResult(uuid())
    for job in (sent, foreign):
        job.then(lambda result: called.append(result.id))
    (waited_for,) = send(app)
    with (
        soon(store.ends, sent, 1, "SUCCESS", app.thread_oid, seconds=0.1),
        soon(store.ends, foreign, 2, seconds=0.1),
        soon(store.ends, waited_for, 3, "SUCCESS", app.thread_oid, seconds=0.4),
    ):
        waited_for.get(timeout=DEADLINE)

    assert sorted(called) == sorted([sent.id, foreign.id])


@pytest.mark.usefixtures("no_polls")
def test_a_callback_may_wait_itself(store: Store, app: Any) -> None:
    first, second = send(app, 2)
    values: list[Any] = []
    first.then(lambda _: values.append(second.get(timeout=DEADLINE, disable_sync_subtasks=False)))
    with (
        soon(store.ends, first, 1, "SUCCESS", app.thread_oid, seconds=0.1),
        soon(store.ends, second, 2, "SUCCESS", app.thread_oid),
    ):
        _, took = seconds(first.get, timeout=DEADLINE)

    assert values == [2]
    assert took < IN_TIME


# Deadlines and lost connections --------------------------------------------------------


@pytest.mark.usefixtures("no_polls")
@pytest.mark.parametrize("timeout", [0, 0.05, 0.5, 1.25])
def test_a_timeout_is_precise(app: Any, timeout: float) -> None:
    for job in (app.AsyncResult(uuid()), *send(app)):
        error, took = seconds(job.get, timeout=timeout)

        assert isinstance(error, CeleryTimeout)
        assert timeout <= took < timeout + IN_TIME
    backend: Any = app.backend
    assert not any(backend._pending_results)


def test_a_result_that_was_not_announced_is_found_within_a_second(store: Store, app: Any) -> None:
    (job,) = send(app)
    payload = app.backend.payload(job.id, 7, "SUCCESS")
    with soon(store.redis().set, f"celery-task-meta-{job.id}", payload):
        value, took = seconds(job.get, timeout=DEADLINE)

    assert value == 7
    assert took < IN_TIME


@pytest.mark.usefixtures("no_polls")
def test_the_deadline_finds_a_result_that_was_not_announced(store: Store, app: Any) -> None:
    listen(store, app)
    (job,) = send(app)
    store.redis().set(f"celery-task-meta-{job.id}", app.backend.payload(job.id, 7, "SUCCESS"))

    def value() -> Any:
        with suppress(CeleryTimeout):  # of the read at the deadline, on a busy machine
            return job.get(timeout=0.1)
        return None

    assert eventually("the result is found", value) == 7


@pytest.mark.usefixtures("no_polls")
def test_all_connections_killed_is_no_error(store: Store, app: Any) -> None:
    (job,) = send(app)
    with (
        soon(store.redis().execute_command, "CLIENT KILL SKIPME yes", seconds=0.1),
        soon(store.ends, job, 7, "SUCCESS", app.thread_oid, seconds=0.5),
    ):
        value, took = seconds(job.get, timeout=DEADLINE)

    assert value == 7
    assert took < IN_TIME


@pytest.mark.parametrize("all_of_them", [False, True])
def test_connections_that_went_silent_hang_no_caller(
    store: Store, proxy: Proxy, all_of_them: bool
) -> None:
    app: Any = store.program(proxy.port)
    (before, job) = send(app, 2)
    store.ends(before, 1, "SUCCESS", app.thread_oid)
    before.get(timeout=DEADLINE)
    proxy.silence(new_ones_too=all_of_them)
    with soon(store.ends, job, 7, "SUCCESS", app.thread_oid):
        value, took = seconds(job.get, timeout=4 if all_of_them else DEADLINE)

    if all_of_them:
        assert isinstance(value, CeleryTimeout)
        assert "does not answer" in str(value)
        assert 4 <= took < 4 + IN_TIME
    else:
        assert value == 7
        assert took < IN_TIME


def test_a_silent_connection_is_replaced_by_one_with_notices(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    app: Any = store.program(proxy.port)
    listen(store, app)
    (lost, after) = send(app, 2)
    proxy.silence()
    seconds(lost.get, timeout=4.5)
    monkeypatch.setattr(consumer, "INTERVAL", NO_POLLS)
    with soon(store.ends, after, 7, "SUCCESS", app.thread_oid):
        value, took = seconds(after.get, timeout=DEADLINE)

    assert value == 7
    assert took < IN_TIME


def test_a_wait_without_a_timeout_outlives_a_restart(
    own_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    app: Any = own_store.program()
    job, other = send(app, 2)

    def restart() -> None:
        own_store.stop()
        sleep(1)
        own_store.start()
        own_store.ends(job, 7, "SUCCESS", app.thread_oid)

    with soon(restart):
        assert job.get() == 7
    monkeypatch.setattr(consumer, "INTERVAL", NO_POLLS)
    with soon(own_store.ends, other, 8, "SUCCESS", app.thread_oid):
        value, took = seconds(other.get, timeout=DEADLINE)
    assert value == 8
    assert took < IN_TIME


def test_an_unreachable_store_is_an_error_at_the_deadline(tmp_path: Path) -> None:
    store = Store(tmp_path)
    app: Any = store.program()
    (job,) = send(app)
    store.stop()
    error, took = seconds(job.get, timeout=1.5)

    assert isinstance(error, CeleryTimeout)
    assert "does not answer" in str(error)
    assert isinstance(error.__cause__, Exception)
    assert 1.5 <= took < 1.5 + IN_TIME


def test_a_wrong_password_is_an_error_at_once(store: Store) -> None:
    app: Any = store.program()
    wrong: Any = Celery(
        backend=f"celery_streams:RedisBackend+redis://:wrong@127.0.0.1:{store.port}/0",
        set_as_current=False,
    )
    error, took = seconds(wrong.AsyncResult(app.send_task("x", queue="n").id).get, timeout=DEADLINE)

    assert isinstance(error, AuthenticationError)
    assert took < IN_TIME


def test_a_program_without_the_right_to_subscribe_reads_each_second(store: Store) -> None:
    store.redis().execute_command(
        *("ACL", "SETUSER", "deaf", "on", ">deaf", "~*", "resetchannels", "+@all", "-subscribe")
    )
    app: Any = Celery(
        backend=f"celery_streams:RedisBackend+redis://deaf:deaf@127.0.0.1:{store.port}/0",
        set_as_current=False,
    )
    job = app.AsyncResult(uuid())
    with soon(store.ends, job, 7):
        value, took = seconds(job.get, timeout=DEADLINE)

    assert value == 7
    assert took < IN_TIME


# Many jobs and threads -------------------------------------------------------------------


def test_two_threads_get_thousands_of_results(store: Store, app: Any) -> None:
    count = 3000

    def work(number: int) -> list[Any]:
        jobs = send(app, count)
        oid = app.thread_oid

        def end() -> None:
            for each, job in enumerate(jobs):
                store.ends(job, each, "SUCCESS", oid if each % 3 else None)

        with soon(end, seconds=0.01):
            if number:
                return [job.get(timeout=30) for job in jobs]
            values: list[Any] = ResultSet(jobs, app=app).get(timeout=30)
            return values

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(work, range(2))] == [[*range(count)]] * 2


@pytest.mark.usefixtures("no_polls")
def test_a_large_member_of_a_group_has_no_other_read(store: Store, app: Any) -> None:
    listen(store, app)
    jobs = send(app, 20)
    called, oid = calls(store.redis()), app.thread_oid

    def end() -> None:
        for job in jobs:
            store.ends(job, "x" * 2 * MAX_NOTICE_BYTES, "SUCCESS", oid)

    with soon(end):
        assert len(GroupResult(uuid(), jobs, app=app).get(timeout=DEADLINE)) == 20
    assert called()["mget"] == 20  # one each: the notice of a large result is its key


def test_two_threads_wait_for_the_same_group(store: Store, app: Any) -> None:
    jobs = send(app, 200)
    group = GroupResult(uuid(), jobs, app=app)
    with ThreadPoolExecutor(2) as pool:
        values = [pool.submit(group.get, timeout=DEADLINE) for _ in range(2)]
        for number, job in enumerate(jobs):
            store.ends(job, number, "SUCCESS", app.thread_oid)

        assert [each.result() for each in values] == [[*range(200)]] * 2


def test_a_result_that_two_threads_learn_of_is_fulfilled_once(app: Any) -> None:
    job = app.AsyncResult(uuid())
    called: list[int] = []
    stock = job._set_cache
    job.then(lambda _: None)

    def slowly(meta: Any) -> None:
        called.append(1)
        sleep(0.1)
        stock(meta)

    job._set_cache = slowly
    meta = {"status": "SUCCESS", "result": 1, "task_id": job.id}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(app.backend.result_consumer.on_state_change, dict(meta))

    assert called == [1]


@pytest.mark.usefixtures("no_polls")
def test_many_threads_wait_and_each_is_notified_at_once(store: Store, app: Any) -> None:
    jobs = [app.AsyncResult(uuid()) for _ in range(30)]
    took: dict[int, float] = {}
    ended: dict[int, float] = {}

    def wait(number: int) -> None:
        assert jobs[number].get(timeout=DEADLINE) == number
        took[number] = monotonic() - ended[number]

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    sleep(0.5)
    for number, job in enumerate(jobs):
        ended[number] = monotonic()
        store.ends(job, number)
        sleep(0.02)
    for thread in threads:
        thread.join()

    assert max(took.values()) < IN_TIME


@pytest.mark.usefixtures("no_polls")
def test_a_thread_that_is_busy_with_news_keeps_no_other_waiting(store: Store, app: Any) -> None:
    listen(store, app)
    busy, other = send(app, 2)
    is_busy, may_go_on = threading.Event(), threading.Event()

    def on_message(_: Any) -> None:
        is_busy.set()
        may_go_on.wait(DEADLINE)

    with ThreadPoolExecutor(1) as pool:
        listens = pool.submit(busy.get, timeout=2 * DEADLINE, on_message=on_message)
        store.ends(busy, {}, "PROGRESS", app.thread_oid)
        assert is_busy.wait(DEADLINE)
        with soon(store.ends, other, 7, "SUCCESS", app.thread_oid):
            value, took = seconds(other.get, timeout=DEADLINE)
        may_go_on.set()
        store.ends(busy, 8, "SUCCESS", app.thread_oid)

    assert (value, listens.result()) == (7, 8)
    assert took < IN_TIME


@pytest.mark.usefixtures("no_polls")
def test_there_is_always_a_thread_that_listens(store: Store, app: Any) -> None:
    listen(store, app)
    channel = app.backend.channel_of(app.thread_oid)
    for _ in range(5):
        jobs = send(app, 10)
        with ThreadPoolExecutor(10) as pool:
            waiting = [pool.submit(seconds, job.get, timeout=DEADLINE) for job in jobs]
            sleep(0.2)
            with store.redis().pipeline() as at_once:
                for job in jobs[:-1]:
                    key = f"celery-task-meta-{job.id}"
                    payload = app.backend.payload(job.id, 1, "SUCCESS")
                    at_once.set(key, payload).publish(channel, payload)
                at_once.execute()
            sleep(0.2)
            store.ends(jobs[-1], 1, "SUCCESS", app.thread_oid)
            took = [each.result()[1] for each in waiting]

        assert max(took) < IN_TIME


def test_a_group_in_a_group_has_one_deadline(
    store: Store, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters: list[ResultWaiter] = []

    class RecordedWaiter(ResultWaiter):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            waiters.append(self)

    monkeypatch.setattr(consumer, "ResultWaiter", RecordedWaiter)
    inner, outer = send(app, 2), send(app, 1)
    members: list[Any] = [*outer, GroupResult(uuid(), inner, app=app)]
    group = GroupResult(uuid(), members, app=app)
    store.ends(inner[0], 1, "SUCCESS", app.thread_oid)
    with pytest.raises(CeleryTimeout):
        group.get(timeout=0.5)

    (waiter,) = [each for each in waiters if each.open]
    assert waiter.open.keys() == {outer[0].id, inner[1].id}
    for job, value in ((outer[0], 1), (inner[1], 2)):
        store.ends(job, value, "SUCCESS", app.thread_oid)
    assert group.get(timeout=DEADLINE) == [1, [1, 2]]


def test_members_of_a_group_come_as_they_end(store: Store, app: Any) -> None:
    jobs = send(app, 3)
    group = GroupResult(uuid(), jobs, app=app)
    order = [2, 0, 1]
    came: list[tuple[str, int]] = []
    oid = app.thread_oid

    def end_the_next() -> None:
        number = order[len(came)]
        store.ends(jobs[number], number, "SUCCESS", oid)

    with soon(end_the_next):
        for job_id, meta in group.iter_native(timeout=DEADLINE):
            came.append((job_id, meta["result"]))
            if len(came) < len(order):
                end_the_next()

    assert came == [(jobs[number].id, number) for number in order]


@pytest.mark.parametrize("listens", [True, False])
def test_a_result_that_was_forgotten_is_not_remembered(
    store: Store, app: Any, listens: bool
) -> None:
    if listens:
        listen(store, app)
    first, second = send(app, 2)
    for job in (first, second):
        store.ends(job, 1, "SUCCESS", app.thread_oid)
    assert second.get(timeout=DEADLINE) == 1
    job_id = first.id
    first.forget()

    with pytest.raises(CeleryTimeout):
        app.AsyncResult(job_id).get(timeout=0.2)


@pytest.mark.usefixtures("no_polls")
def test_a_forked_process_waits_by_connections_of_its_own(store: Store, app: Any) -> None:
    listen(store, app)
    (job,) = send(app)
    channel = app.backend.channel_of(app.thread_oid)
    child = os.fork()
    if not child:
        value, took = seconds(job.get, timeout=DEADLINE)
        os._exit(0 if value == 7 and took < IN_TIME else 1)
    eventually("both listen", lambda: store.redis().pubsub_numsub(channel)[0][1] == 2)
    with soon(store.ends, job, 7, "SUCCESS", app.thread_oid):
        assert job.get(timeout=DEADLINE) == 7
    assert os.waitpid(child, 0)[1] == 0


INVALID_RESULTS: list[bytes] = [
    b"",
    b"5",
    b"{}",
    b"[]",
    b"null",
    b'"text"',
    b"{not json",
    b"\xff\xfe",
    b"[" * 10_000_000,
    b"[" * 5_000_000 + b"]" * 5_000_000,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b"9" * 5000,
    b'{"status": "SUCCESS"}',
    b'{"result": 1}',
    b'{"status": "SUCCESS", "result": 1}',
    b'{"status": null, "result": 1, "task_id": "%s"}',
    b'{"status": ["SUCCESS"], "result": 1, "task_id": "%s"}',
    b'{"status": "SUCCESS", "task_id": "%s"}',
    b'{"status": "SUCCESS", "result": 1, "task_id": ["x"]}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "another"}',
    b'[{"status": "SUCCESS", "result": 1, "task_id": "%s"}]',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "children": 5}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "children": [[["a", 1], null]]}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "children": [[{}, null]]}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "children": [["a", "b"]]}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "children": ["ab"]}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "traceback": {}}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "parent_id": ["x"]}',
    b'{"status": "SUCCESS", "result": 1, "task_id": "%s", "group_id": 5}',
    b'{"status": "FAILURE", "result": null, "task_id": "%s"}',
    b'{"status": "FAILURE", "result": 5, "task_id": "%s"}',
    b'{"status": "FAILURE", "result": {}, "task_id": "%s"}',
    b'{"status": "FAILURE", "result": {"exc_type": []}, "task_id": "%s"}',
    b'{"status": "REVOKED", "result": "text", "task_id": "%s"}',
    b'{"status": "SUCCESS", "result": {"__type__": "no", "__value__": 1}, "task_id": "%s"}',
    b"\0celery-compressed\0",
    b"\0celery-compressed\0application/x-bz2\0no bzip2",
    b"\0celery-compressed\0unheard-of\0" + b"x" * 100,
    b"\0celery-compressed\0application/x-gzip\0" + compress(b"\0celery-compressed\0a\0b"),
]


@pytest.mark.parametrize("payload", INVALID_RESULTS, ids=lambda value: ascii(value[:70]))
def test_an_invalid_result_is_unreadable_for_its_job_alone(
    store: Store, app: Any, payload: bytes
) -> None:
    bad, good, member = send(app, 3)
    payload = payload.replace(b"%s", bad.id.encode())
    with store.redis() as redis:
        redis.set(f"celery-task-meta-{bad.id}", payload)
    for job in (good, member):
        store.ends(job, 7, sender=app.thread_oid)

    assert good.get(timeout=DEADLINE) == 7
    asking: list[Any] = [lambda: bad.get(timeout=DEADLINE), lambda: app.AsyncResult(bad.id).state]
    for ask in asking:
        with pytest.raises(Unreadable) as raised:
            ask()
        assert len(str(raised.value).splitlines()) == 1
        assert len(str(raised.value)) < 400
    with pytest.raises(Unreadable):
        GroupResult(uuid(), [member, app.AsyncResult(bad.id)]).get(timeout=DEADLINE)
    bad.forget()


@pytest.mark.parametrize("payload", INVALID_RESULTS, ids=lambda value: ascii(value[:70]))
def test_an_invalid_notice_is_ignored(store: Store, app: Any, payload: bytes) -> None:
    listen(store, app)
    (job,) = send(app)
    payload = payload.replace(b"%s", uuid().encode())

    sender = app.thread_oid
    channel = app.backend.channel_of(sender)

    def announce() -> None:
        with store.redis() as redis:
            assert redis.publish(channel, payload) == 1
            for notice in (b"celery-task-meta-", b"celery-task-meta-\xff", b"celery-task-meta-x"):
                redis.publish(channel, notice)
        store.ends(job, 7, sender=sender)

    with soon(announce):
        assert job.get(timeout=DEADLINE) == 7


def test_good_results_in_a_notice_with_bad_ones_are_taken(store: Store, app: Any) -> None:
    listen(store, app)
    (job,) = send(app)
    good = json.dumps({"status": "SUCCESS", "result": 7, "task_id": job.id}).encode()
    notice = b"[" + b",".join([b"5", b"{}", good, b"null", b'{"status": 5}']) + b"]"

    channel = app.backend.channel_of(app.thread_oid)

    def announce() -> None:
        with store.redis() as redis:
            redis.publish(channel, notice)

    with soon(announce):
        assert job.get(timeout=DEADLINE) == 7


def test_a_compressed_result_is_bounded(store: Store, app: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("celery_streams.results.payloads.MAX_BYTES", 2**20)
    job, small = send(app, 2)
    for each, size in ((job, 2**21), (small, 2**19)):
        meta = {"status": "SUCCESS", "result": "x" * size, "task_id": each.id}
        payload = compress(json.dumps(meta).encode())
        with store.redis() as redis:
            prefix = b"\0celery-compressed\0application/x-gzip\0"
            redis.set(f"celery-task-meta-{each.id}", prefix + payload)

    assert len(small.get(timeout=DEADLINE)) == 2**19
    with pytest.raises(Unreadable, match="more than 1048576 bytes"):
        job.get(timeout=DEADLINE)


def test_states_without_a_callback_are_not_kept(app: Any) -> None:
    consumer = app.backend.result_consumer
    (job,) = send(app)
    wait = ResultWaiter([job])
    consumer._waiters.add(wait)
    for number in range(1000):
        meta = {"status": "PROGRESS", "result": number, "task_id": job.id}
        consumer.on_state_change(meta)
        consumer._notify_or_buffer([{**meta, "task_id": uuid()}])
    consumer._leave(wait)

    assert not wait.news
    assert not wait._last_news
    assert consumer._sent == {job.id}


def test_an_invalid_stored_group_is_unreadable(store: Store, app: Any) -> None:
    group_id, members = uuid(), send(app, 2)
    group: Any = GroupResult(group_id, members, app=app)
    stored = app.backend.encode({"result": group.as_tuple()})

    def restored(payload: Any) -> Any:
        with store.redis() as redis:
            redis.set(f"celery-taskset-meta-{group_id}", payload)
        return GroupResult.restore(group_id, app.backend, app)

    assert restored(stored) == group
    for payload in (b"5", b"{}", b'{"result": 5}', b'{"result": [[{}, 1], []]}', b"[" * 10_000):
        with pytest.raises(Unreadable):
            restored(payload)
