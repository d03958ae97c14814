"""Remote control: each command is obeyed or refused, and none stops a worker."""

import json
from collections.abc import Iterator
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import TaskRevokedError
from redis import Redis

from callers.client import Client
from celery_streams import dead_letters
from celery_streams.transport import revocation
from tests.support.families import FAMILIES
from tests.support.local import Local
from tests.support.waiting import eventually


@pytest.fixture
def redis(client: Client) -> Iterator[Any]:
    """A plain client of the cluster's Redis."""
    store: Any = client.app.backend
    with Redis(connection_pool=store.client.connection_pool) as redis:
        yield redis


def answers(client: Client, command: str, **arguments: Any) -> dict[str, Any]:
    """Return each worker's reply to a command, by its family."""
    control: Any = client.app.control
    replies = (
        control.broadcast(command, arguments=arguments, reply=True, timeout=10, limit=len(FAMILIES))
        or []
    )
    return {name.split("@")[0]: answer for reply in replies for name, answer in reply.items()}


def states(jobs: list[Any]) -> set[str]:
    """Return the states of jobs."""
    return {job.state for job in jobs}


def test_a_queue_that_is_paused_and_resumed_loses_nothing(client: Client, redis: Any) -> None:
    paused = answers(client, "cancel_consumer", queue="add")
    assert paused["add"] == {"ok": "no longer consuming from add"}
    assert "does not consume from 'add'" in paused["factorial"]["error"]
    jobs = [client.submit("add.tasks.add", i, i) for i in range(50)]
    resumed = answers(client, "add_consumer", queue="add")

    assert resumed["add"] == {"ok": "add consumer add"}
    for family in ("factorial", "mat_mul"):
        assert resumed[family] == {"error": "this worker has no task of the queue 'add'"}
    assert [client.get(job) for job in jobs] == [2 * i for i in range(50)]
    assert "add" not in dead_letters.queues(redis)


@pytest.mark.parametrize("queue", ["nosuch", "add:dead", "", 7, "x" * 2000, ["add"]])
def test_a_queue_of_another_worker_is_refused(client: Client, queue: Any) -> None:
    replies = answers(client, "add_consumer", queue=queue)

    assert len(replies) == 3
    assert all("error" in answer for answer in replies.values())


def test_a_revoked_job_does_not_run_in_a_worker_that_starts_later(server_only: Local) -> None:
    with server_only.client() as client:
        later = client.signature("add.tasks.longtime_add", 1, 2, 0).set(countdown=4)
        with server_only.own_worker("local", "worker", "add"):
            assert client.call("add.tasks.add", 4, 6) == 10  # it listens
            jobs: list[Any] = [client.submit(later) for _ in range(20)]
            assert client.app.control.revoke(
                [job.id for job in jobs], reply=True, timeout=10, limit=1
            )
            eventually("all are revoked", lambda: states(jobs) == {"REVOKED"})
        with server_only.own_worker("local", "worker", "add"):
            assert client.call(later) == 3  # due after them
            assert states(jobs) == {"REVOKED"}
            stats = client.app.control.inspect(timeout=20, limit=1).stats() or {}

    assert sum(worker["total"].get("add.tasks.longtime_add", 0) for worker in stats.values()) == 1


def test_a_job_that_waits_is_revoked_while_no_worker_runs(server_only: Local) -> None:
    with server_only.client() as client:
        job: Any = client.submit("add.tasks.add", 1, 2)
        other = client.submit("add.tasks.add", 3, 4)
        job.revoke()
        with pytest.raises(TaskRevokedError):
            client.get(job, timeout=10)
        with server_only.own_worker("local", "worker", "add"):
            assert client.get(other) == 7
            assert client.call("add.tasks.add", 5, 6) == 11
        assert states([job]) == {"REVOKED"}


def test_what_a_stock_program_revokes_is_kept_for_later_workers(client: Client, redis: Any) -> None:
    job_id = str(uuid4())
    replies = answers(client, "revoke", task_id=[job_id])

    assert all("flagged as revoked" in answer["ok"] for answer in replies.values())
    eventually("it is kept", lambda: redis.zscore(revocation.KEY, job_id) is not None)
    eventually("it is stored", lambda: states([client.app.AsyncResult(job_id)]) == {"REVOKED"})


def test_a_time_ahead_hides_no_revoked_job(server_only: Local) -> None:
    with server_only.client() as client:
        store: Any = client.app.backend
        with (
            Redis(connection_pool=store.client.connection_pool) as redis,
            server_only.own_worker("local", "worker", "add"),
        ):
            assert client.call("add.tasks.add", 4, 6) == 10
            redis.zadd(revocation.KEY, {"x": 1e18})
            inspect: Any = client.app.control.inspect(timeout=10, limit=1)
            eventually("it is read", lambda: "x" in str(inspect.revoked()))
            job = client.submit(client.signature("add.tasks.add", 1, 2).set(countdown=8))
            revocation.record(redis, [job.id])  # as another worker does
            with pytest.raises(TaskRevokedError):
                client.get(job, timeout=30)


def test_revoked_ids_that_cannot_be_read_hold_up_no_job(server_only: Local) -> None:
    with server_only.client() as client:
        store: Any = client.app.backend
        with Redis(connection_pool=store.client.connection_pool) as redis:
            redis.set(revocation.KEY, "no sorted set")
        with server_only.own_worker("local", "worker", "add"):
            for i in range(5):
                assert client.call("add.tasks.longtime_add", i, i, 0) == 2 * i
    assert "WRONGTYPE" in server_only.own_log.read_text()


def test_a_rate_limit_holds_for_a_task_that_had_none(client: Client) -> None:
    assert answers(client, "rate_limit", task_name="add.tasks.add", rate_limit="4/s")["add"] == {
        "ok": "new rate limit set successfully"
    }
    try:
        began = monotonic()
        client.map("add.tasks.add", [(i, i) for i in range(9)])
        took = monotonic() - began
    finally:
        answers(client, "rate_limit", task_name="add.tasks.add", rate_limit="")

    assert took >= 1.9  # the first at once, then one each quarter of a second


def test_a_new_rate_limit_holds_for_the_jobs_that_wait_already(server_only: Local) -> None:
    task = "add.tasks.unsteady_add"
    with (
        server_only.client() as client,
        server_only.own_worker("local", "worker", "add"),
    ):
        assert client.call("add.tasks.add", 4, 6) == 10  # it listens
        control: Any = client.app.control
        for limit in ("2/h", "1/m"):
            control.rate_limit(task, limit, reply=True, timeout=10, limit=1)
        jobs = [client.submit(task, i, i, 0) for i in range(20)]
        # Several processes fetch: it need not be the first one.
        eventually("one has run", lambda: states(jobs) == {"SUCCESS", "PENDING"})
        control.rate_limit(task, "", reply=True, timeout=10, limit=1)
        # At one a minute before.
        assert [client.get(job, timeout=30) for job in jobs] == [2 * i for i in range(20)]


def test_what_is_terminated_from_the_command_line_stays_revoked(
    client: Client, local: Local, redis: Any
) -> None:
    job_id = str(uuid4())
    done = local.command("celery", "-A", "add.worker", "control", "terminate", "TERM", job_id)

    assert done.returncode == 0, done.stderr
    eventually("it is kept", lambda: redis.zscore(revocation.KEY, job_id) is not None)
    eventually("it is stored", lambda: states([client.app.AsyncResult(job_id)]) == {"REVOKED"})


@pytest.mark.parametrize("ids", ["", 7 * "x" * 2000, ["x", ""], [str(i) for i in range(200_001)]])
def test_what_cannot_be_revoked_is_an_error_of_the_caller(
    client: Client, redis: Any, ids: Any
) -> None:
    before = redis.zcard(revocation.KEY)
    with pytest.raises(ValueError, match=r"only job ids|at most 200000 ids"):
        client.app.control.revoke(ids)

    assert redis.zcard(revocation.KEY) == before


@pytest.mark.parametrize("limit", ["0", "0/s", "0.0/h", 0])
def test_a_rate_limit_of_zero_disables_it(client: Client, limit: Any) -> None:
    replies = answers(client, "rate_limit", task_name="add.tasks.add", rate_limit=limit)

    assert replies["add"] == {"ok": "rate limit disabled successfully"}


def test_stamps_from_the_command_line_may_hold_the_sign_that_divides_them(client: Client) -> None:
    replies = answers(client, "revoke_by_stamped_headers", headers=["a=b=c", "a=d", "e=f"])

    assert "{'a': ['b=c', 'd'], 'e': ['f']}" in replies["add"]["ok"]


def test_an_answer_that_is_too_large_is_an_error_of_its_command(server_only: Local) -> None:
    """Delayed jobs are all listed with their arguments; of revoked ones, only the latest."""
    server_only.env["MAX_MESSAGE_BYTES"] = "65536"
    with server_only.client() as client, server_only.own_worker("local", "worker", "add"):
        assert client.call("add.tasks.add", 4, 6) == 10  # it listens
        numbers = [*range(3000)]
        later = client.signature("add.tasks.tsum", numbers).set(countdown=3600)
        for _ in range(20):
            client.submit(later)
        control: Any = client.app.control
        for command in ("scheduled", "stats"):
            (reply,) = control.broadcast(command, reply=True, timeout=10, limit=1)
            (answer,) = reply.values()
            assert ("the reply cannot be sent" in answer.get("error", "")) == (
                command == "scheduled"
            )
        assert client.call("add.tasks.add", 4, 6) == 10


def test_of_many_revoked_ids_the_latest_are_listed(server_only: Local) -> None:
    ids = [str(uuid4()) for _ in range(30_000)]
    with server_only.client() as client, server_only.own_worker("local", "worker", "add"):
        assert client.call("add.tasks.add", 4, 6) == 10  # it listens
        client.app.control.revoke(ids)
        control: Any = client.app.control

        def revoked() -> set[str]:
            (reply,) = control.broadcast("revoked", reply=True, timeout=10, limit=1)
            return {job_id for each in reply.values() for job_id in each}

        eventually("the latest are listed", lambda: revoked() == {*ids[-revocation.MAX_IDS :]})


def test_a_time_that_no_calendar_has_keeps_no_other_from_being_listed(
    server_only: Local,
) -> None:
    with server_only.client() as client, server_only.own_worker("local", "worker", "add"):
        inspect: Any = client.app.control.inspect(timeout=10, limit=1)
        job = client.submit(client.signature("add.tasks.add", 1, 2).set(countdown=3600))
        store: Any = client.app.backend
        with Redis(connection_pool=store.client.connection_pool) as redis:
            ((member, _),) = redis.zrange("add:delayed", 0, -1, withscores=True)
            for odd in ("inf", "-inf", 1e18):
                redis.zadd("add:delayed", {b"odd" + member: odd})
                assert client.call("add.tasks.add", 4, 6) == 10
                (listed,) = inspect.scheduled().values()
                assert job.id in [each["request"]["id"] for each in listed]


HALF = "half \ud800"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("revoke", {"task_id": [f"id-{i}" for i in range(100_000)]}),
        ("revoke", {"task_id": 7}),
        ("revoke", {"task_id": [["x"]]}),
        ("revoke", {"task_id": ["x" * 2000]}),
        ("revoke", {"task_id": "x", "terminate": True, "signal": "NOSUCH"}),
        ("terminate", {"task_id": {"a": 1}, "signal": "KILL"}),
        ("terminate", {"task_id": ["x"], "signal": 10**400}),
        ("revoke_by_stamped_headers", {"headers": ["x"]}),
        ("revoke_by_stamped_headers", {"headers": {"a": ["b" * 2000]}}),
        ("revoke_by_stamped_headers", {"headers": 7}),
        ("rate_limit", {"task_name": "add.tasks.add", "rate_limit": "x/y"}),
        ("rate_limit", {"task_name": "add.tasks.add", "rate_limit": "1e400/s"}),
        ("rate_limit", {"task_name": "add.tasks.add", "rate_limit": 10**400}),
        ("rate_limit", {"task_name": "add.tasks.add", "rate_limit": "-1/s"}),
        ("rate_limit", {"task_name": "add.tasks.add", "rate_limit": {}}),
        ("time_limit", {"task_name": "add.tasks.add", "hard": 10**400}),
        ("time_limit", {"task_name": "add.tasks.add", "soft": -1}),
        ("time_limit", {"task_name": "add.tasks.add", "soft": "soon"}),
        ("pool_grow", {"n": 10**9}),
        ("pool_grow", {"n": "many"}),
        ("pool_grow", {"n": -1}),
        ("pool_shrink", {"n": 10**9}),
        ("pool_shrink", {"n": 1.5}),
        ("autoscale", {"max": 10**9}),
        ("autoscale", {"max": 0, "min": 0}),
        ("pool_restart", {}),
        ("pool_restart", {"modules": 7}),
        ("election", {"id": "x", "topic": []}),
        ("election", {"id": "x", "topic": "task", "action": [1]}),
        ("election", {"topic": "task"}),
        ("election", {"id": "x", "topic": "task"}),
        ("enable_events", {"x": 1}),
        ("ping", {"state": 1}),
        ("query_task", {"ids": list(map(str, range(100_000)))}),
        ("query_task", {"ids": 7}),
        ("hello", {"from_node": "x", "revoked": [["x"]]}),
        ("registered", {"taskinfoitems": 7}),
        ("pool_shrink", {"bogus": 1, "n": None}),
        ("cancel_consumer", {"queue": {"a": 1}}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_argument_out_of_bounds_is_refused_in_one_sentence(
    client: Client, command: str, arguments: dict[str, Any]
) -> None:
    replies = answers(client, command, **arguments)

    assert replies.keys() == {"add", "factorial", "mat_mul"}
    for answer in replies.values():
        assert len(answer["error"]) < 300
        assert "\n" not in answer["error"]
    assert client.call("add.tasks.add", 4, 6) == 10


@pytest.mark.parametrize(
    "fields",
    [
        {"matcher": "pcre", "pattern": "(a+)+$" + "a" * 40},
        {"matcher": "glob", "pattern": "*a" * 5000},
        {"matcher": ["glob"], "pattern": "*"},
        {"matcher": "glob", "pattern": 7},
        {"method": ["ping"]},
        {"method": "nosuch"},
        {"method": None},
        {"arguments": [1]},
        {"destination": 7},
        {"reply_to": {"exchange": 7}},
        {"reply_to": "x"},
        {"ticket": {"a": 1}},
        {"bogus": 1},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_invalid_command_is_ignored(
    client: Client, local: Local, fields: dict[str, Any]
) -> None:
    control: Any = client.app.control
    with client.app.connection_for_write() as connection:
        mailbox = control.mailbox(connection)
        producer = connection.Producer(serializer="json")
        command = {"method": "ping", "arguments": {}, **fields}
        producer.publish(command, exchange=mailbox.exchange, declare=[mailbox.exchange])

    assert len(answers(client, "ping")) == 3
    assert "ontrol command error" not in local.output()
    assert "pidbox command error" not in local.output()


def test_every_command_of_celery_that_takes_arguments_is_checked() -> None:
    from celery.worker.control import Panel

    from celery_streams.install import install_worker
    from celery_streams.worker import remote_control

    install_worker()
    takes_any = {"conf", "dump_conf", "active", "dump_active", "memdump", "shutdown"}
    takes_any |= {"scheduled", "dump_schedule", "revoked", "dump_revoked"}
    unchecked = [
        name
        for name, command in Panel.data.items()
        if not hasattr(command, "__wrapped__") and command.__code__.co_argcount > 1
    ]
    assert set(unchecked) - takes_any == {"revoke", "terminate"}
    assert Panel.data["revoke"] is remote_control.revoke
    assert json.dumps(sorted(Panel.meta)).count("objgraph") == 0
