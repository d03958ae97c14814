"""Celery's own worker on the transport, with each pool that needs no other package."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from billiard.exceptions import WorkerLostError
from celery import Celery, chord, group
from celery.events.event import get_exchange as event_exchange
from celery.exceptions import NotRegistered, SoftTimeLimitExceeded, TimeLimitExceeded

from celery_streams.errors import DeadLetter, Malformed, OutOfMemory
from tests.support.programs import OURS, program, worker
from tests.support.repo import read
from tests.support.waiting import eventually

POOLS = (OURS, "prefork", "solo", "threads")
#: The commands by which a worker looks after its queues, or fetches.
ASKING = {"evalsha", "xreadgroup"}


@pytest.fixture
def plain(url: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the program."""
    with program("tests.streams.plain", url, monkeypatch) as plain:
        yield plain


@pytest.mark.parametrize("pool", POOLS)
def test_jobs_and_canvas_run_and_nothing_is_left(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool) as process:
        jobs = [plain.add.delay(i, i) for i in range(50)]
        assert [job.get(timeout=30) for job in jobs] == [*range(0, 100, 2)]
        assert chord([plain.add.s(i, 1) for i in range(5)], plain.total.s())().get(timeout=30) == 15
        later = plain.add.apply_async((4, 6), countdown=3)
        assert later.get(timeout=30) == 10
        eventually(
            "all are acknowledged",
            lambda: not any(store.xlen(key) for key in store.scan_iter("celery:*", _type="stream")),
        )
    assert process.returncode == 0, (tmp_path / "log").read_text()


@pytest.fixture
def documented_user(server_url: str, store: Any) -> Iterator[str]:
    """The URL of the user in docs/streams.md, with the keys of one more queue."""
    (command,) = re.findall(r"^ACL SETUSER (.+)$", read("docs/streams.md"), re.MULTILINE)
    store.execute_command("ACL", "SETUSER", *command.split(), "~listed*")
    store.execute_command("ACL", "LOG", "RESET")
    scheme, _, rest = server_url.partition("://")
    yield f"{scheme}://mine:password@{rest.rpartition('@')[2]}"
    store.execute_command("ACL", "DELUSER", "mine")


def test_the_documented_rights_are_enough(
    documented_user: str, store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with (
        program("tests.streams.plain", documented_user, monkeypatch) as plain,
        worker(plain, log, OURS, "-E", options=()),
    ):
        control = plain.app.control
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        assert plain.add.apply_async((4, 6), countdown=1, priority=9).get(timeout=30) == 10
        assert plain.add.apply_async((4, 6), queue="listed").get(timeout=30) == 10
        assert chord([plain.add.s(i, 1) for i in range(5)], plain.total.s())().get(timeout=30) == 15
        jobs = group(plain.add.s(i, 1) for i in range(2)).apply_async()
        assert jobs.get(timeout=30) == [1, 2]
        assert control.revoke(uuid4().hex, reply=True, timeout=10, limit=1)
        assert control.broadcast("scheduled", reply=True, timeout=10, limit=1)
        control.purge()
        jobs.forget()
    refused = [entry["object"] for entry in _acl_log(store)]
    # Only asked for where they are allowed: the server's version, and the end of a waiting fetch.
    assert {*refused} <= {"info", "client|unblock"}, log.read_text()


def _acl_log(store: Any) -> list[Any]:
    found = store.execute_command("ACL", "LOG", 100)
    return [
        each if isinstance(each, dict) else dict(zip(each[::2], each[1::2], strict=True))
        for each in found
    ]


@pytest.mark.parametrize("pool", POOLS)
def test_a_job_longer_than_three_leases_runs_once(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool), worker(plain, tmp_path / "other", pool):
        assert plain.runs_of.delay("runs", 6.5).get(timeout=30) == 1
    logs = [file.read_text() for file in (tmp_path / "log", tmp_path / "other")]
    assert store.get("runs") == "1", "\n".join(logs)


@pytest.mark.parametrize("pool", POOLS)
def test_what_a_killed_worker_ran_runs_again(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool) as killed:
        job = plain.runs_of.delay("runs", 3)
        eventually("it runs", lambda: store.get("runs") == "1")
        os.killpg(killed.pid, signal.SIGKILL)
        with worker(plain, tmp_path / "other", pool):
            assert job.get(timeout=30) == 2


@pytest.mark.parametrize("pool", [OURS, "prefork", "threads"])
def test_a_worker_that_is_stopped_finishes_what_runs(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool) as stopped:
        jobs = [plain.runs_of.delay(f"runs {i}", 2) for i in range(6)]
        eventually("two run", lambda: len([*store.scan_iter("runs *")]) >= 2)
        stopped.terminate()
        with worker(plain, tmp_path / "other", pool):
            assert [job.get(timeout=30) for job in jobs] == [1] * 6


@pytest.mark.parametrize("pool", POOLS)
def test_what_waits_in_a_worker_longer_than_a_lease_runs_once(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool):
        # A plain worker prefetches four jobs for each process.
        jobs = [plain.runs_of.delay(f"runs {i}", 1.5) for i in range(4)]
        eventually("one runs", lambda: [*store.scan_iter("runs *")])
        with worker(plain, tmp_path / "other", pool):
            assert [job.get(timeout=30) for job in jobs] == [1] * 4


@pytest.mark.parametrize("pool", POOLS)
def test_lost_connections_make_nothing_run_twice(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    with worker(plain, tmp_path / "log", pool):
        jobs = [plain.runs_of.delay(f"runs {i}", 2) for i in range(6)]
        eventually("one runs", lambda: [*store.scan_iter("runs *")])
        for _ in range(2):
            newest = max(int(each["id"]) for each in store.client_list())
            store.client_kill_filter(_type="normal", skipme=True)
            eventually(
                "it asks again",
                lambda: any(
                    int(each["id"]) > newest and each["cmd"] in ASKING  # noqa: B023
                    for each in store.client_list(_type="normal")
                ),
            )
        assert [job.get(timeout=40) for job in jobs] == [1] * 6
    assert not store.exists("celery:dead")


def answer(plain: Any, command: str, **arguments: Any) -> Any:
    """Return the only worker's reply to a command."""
    # By a new connection: another test may have closed those of the pool.
    with plain.app.connection_for_write() as connection:
        (reply,) = plain.app.control.broadcast(
            command, arguments=arguments, reply=True, timeout=10, limit=1, connection=connection
        )
    (answer,) = reply.values()
    return answer


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_limit_that_a_pool_does_not_keep_is_refused_or_warned_of(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    log = tmp_path / "log"
    with worker(plain, log, pool):
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        for limits, kind in (({"hard": 5}, "hard"), ({"soft": 5}, "soft")):
            reply = answer(plain, "time_limit", task_name=plain.add.name, **limits)
            assert reply == {
                "error": f"this worker's pool ignores {kind} time limits; prefork does not"
            }
        assert "time limits" not in log.read_text()
        for _ in range(2):
            limited = plain.add.apply_async((4, 6), time_limit=50, soft_time_limit=40)
            assert limited.get(timeout=30) == 10
        assert log.read_text().count("keeps no hard time limits") == 1
        assert log.read_text().count("keeps no soft time limits") == 1


def test_a_pool_that_keeps_limits_is_given_them(plain: Any, store: Any, tmp_path: Path) -> None:
    with worker(plain, tmp_path / "log", OURS):
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        reply = answer(plain, "time_limit", task_name=plain.runs_of.name, hard=1)
        assert reply == {"ok": "time limits set successfully"}
        with pytest.raises(TimeLimitExceeded):
            plain.runs_of.delay("runs", 30).get(timeout=30)


@pytest.mark.parametrize("pool", POOLS)
def test_a_command_that_fails_is_answered_in_one_line(
    plain: Any, store: Any, tmp_path: Path, pool: str
) -> None:
    log = tmp_path / "log"
    with worker(plain, log, pool):
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        job = plain.runs_of.delay("runs", 3)
        if pool != "solo":  # it answers after the job
            eventually("it runs", lambda: store.get("runs") == "1")
        for command in ("pool_grow", "pool_shrink", "autoscale", "pool_restart"):
            reply = answer(plain, command)
            assert ("ok" in reply) == (
                pool in {OURS, "prefork"} and command in {"pool_grow", "pool_shrink"}
            )
        assert job.get(timeout=30) == 1
        assert plain.add.delay(4, 6).get(timeout=30) == 10
    assert "Traceback" not in log.read_text()


def test_events_that_no_worker_sends_end_none(plain: Any, store: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with worker(plain, log, OURS, options=()):
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        reply = answer(plain, "election", id="one", topic=[])
        assert reply == {"error": "id and topic must be strings of 1 to 1024 characters"}
        fields = {"id": "x", "clock": 1, "hostname": "h", "pid": 1, "topic": [], "action": {}}
        events: list[tuple[str, Any]] = [
            ("worker.elect", {**fields, "cver": 1}),
            ("worker.elect", {**fields, "cver": 1, "clock": "late"}),
            ("worker.elect", {**fields, "id": ["x"]}),
            ("worker.elect", 7),
            ("worker.elect.ack", {"id": {}}),
            ("worker.elect.ack", {}),
            ("worker.heartbeat", []),
            ("worker.heartbeat", {"hostname": ["h"]}),
            ("worker.heartbeat", {"hostname": "h", "timestamp": "soon", "clock": {}}),
            ("worker.x", {"hostname": "h", "type": 7}),
        ]
        with plain.app.connection_for_write() as connection:
            producer = connection.Producer(exchange=event_exchange(connection))
            for key, event in events:
                producer.publish(event, routing_key=key, serializer="json")
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        eventually("they were seen", lambda: "malformed gossip event" in log.read_text())
        assert answer(plain, "ping") == {"ok": "pong"}
    assert "Unrecoverable" not in log.read_text()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", ["exit", "interrupt", "memory", "shutdown"])
def test_what_a_task_raises_ends_neither_its_worker_nor_a_place_in_the_pool(
    plain: Any, store: Any, tmp_path: Path, pool: str, name: str
) -> None:
    with worker(plain, tmp_path / "log", pool) as process:
        jobs = [plain.raises.delay(name) for _ in range(4)]  # more than there are processes
        for job in jobs:
            with pytest.raises((WorkerLostError, OutOfMemory, MemoryError, DeadLetter)):
                job.get(timeout=60)
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        assert process.poll() is None
        eventually("nothing runs", lambda: answer(plain, "active") == [])


def test_what_a_queue_of_lists_holds_ends_no_worker(plain: Any, store: Any, tmp_path: Path) -> None:
    with worker(plain, tmp_path / "log", OURS) as process:
        unknown = plain.app.send_task("no.such", queue="listed")
        with pytest.raises(NotRegistered):
            unknown.get(timeout=30)
        assert plain.add.apply_async((4, 6), queue="listed").get(timeout=30) == 10
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        assert process.poll() is None


@pytest.mark.parametrize("key", ["celery", "celery:delayed", "celery:returned", "celery:dead"])
def test_a_foreign_key_by_a_queues_name_holds_up_no_job_and_is_named(
    plain: Any, store: Any, tmp_path: Path, key: str
) -> None:
    log = tmp_path / "log"
    with worker(plain, log, OURS):
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        store.delete(key)
        store.set(key, "5")
        for i in range(20):
            assert plain.add.delay(i, i).get(timeout=30) == 2 * i
        if key != "celery:dead":
            eventually("it is named", lambda: f"{key} holds a string" in log.read_text())


def test_a_foreign_key_by_a_results_name_holds_up_no_other(
    plain: Any, store: Any, tmp_path: Path
) -> None:
    with worker(plain, tmp_path / "log", OURS):
        store.rpush("celery-task-meta-taken", "x")
        for task in (plain.add, plain.process_name):
            store.delete("celery-task-meta-taken")
            store.rpush("celery-task-meta-taken", "x")
            arguments = (4, 6) if task is plain.add else ()
            taken = task.apply_async(arguments, task_id="taken")
            assert taken.get(timeout=30) in {10, "ForkPoolWorker-1", "ForkPoolWorker-2"}
            assert plain.add.delay(1, 2).get(timeout=30) == 3


BODIES: dict[str, dict[str, Any]] = {
    "half a character": {"body": "/w==", "content-type": "application/json"},
    "pickle": {"body": "gAQu", "content-type": "application/x-python-serialize"},
    "text": {"body": "aGVsbG8=", "content-type": "text/plain"},
    "not compressed": {"body": "e30=", "headers": {"compression": "application/x-gzip"}},
    "unknown compression": {"body": "e30=", "headers": {"compression": "nosuch"}},
    "no JSON": {"body": "e30=e30", "content-type": "application/json"},
}


def test_a_message_of_remote_control_that_cannot_be_read_ends_no_worker(
    plain: Any, store: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with worker(plain, log, OURS, options=()) as process:
        assert plain.add.delay(4, 6).get(timeout=30) == 10
        for fields in BODIES.values():
            message = {
                "content-encoding": "utf-8",
                "content-type": "application/json",
                "headers": {},
                "properties": {
                    "body_encoding": "base64",
                    "delivery_tag": "x",
                    "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
                },
                **fields,
            }
            assert store.publish("/0.celery.pidbox", json.dumps(message)) == 1
            assert plain.add.delay(4, 6).get(timeout=30) == 10
        assert answer(plain, "ping") == {"ok": "pong"}
        assert process.poll() is None
    assert "Unrecoverable" not in log.read_text()
    refusals = re.findall(
        "ignored a message of remote control|refused a remote control command", log.read_text()
    )
    assert len(refusals) == len(BODIES)


def test_ids_that_are_uuids_are_answered(plain: Any, store: Any, tmp_path: Path) -> None:
    """Stock programs may send them; JSON marks them, and no name in Redis is a UUID."""
    stock = Celery("stock", broker=plain.URL, backend=plain.URL, set_as_current=False)
    options: list[dict[str, Any]] = [{"task_id": uuid4()}, {"reply_to": uuid4()}]
    with worker(plain, tmp_path / "log", OURS):
        for each in options:
            job = stock.send_task(plain.add.name, (4, 6), **each)
            with pytest.raises(Exception, match=r"is not an id|is not a name"):
                stock.AsyncResult(str(job.id)).get(timeout=30)
        assert plain.add.delay(4, 6).get(timeout=30) == 10
    store_of_stock: Any = stock.backend
    store_of_stock.client.connection_pool.disconnect()
    stock.close()


def test_a_header_that_is_an_attribute_of_celerys_is_refused(plain: Any, store: Any) -> None:
    with pytest.raises(Malformed, match="'_children' is reserved by Celery"):
        plain.add.apply_async((4, 6), headers={"_children": 5})


def test_a_limit_that_is_next_to_nothing_ends_no_worker(
    plain: Any, store: Any, tmp_path: Path
) -> None:
    with worker(plain, tmp_path / "log", OURS) as process:
        assert plain.process_name.delay().get(timeout=30).startswith("ForkPoolWorker-")
        reply = answer(plain, "time_limit", task_name=plain.process_name.name, hard=5, soft=1e-9)
        assert reply == {"ok": "time limits set successfully"}
        for _ in range(20):
            with suppress(SoftTimeLimitExceeded):
                assert plain.process_name.delay().get(timeout=30).startswith("ForkPoolWorker-")
        assert process.poll() is None
