"""Messages that a worker must not or cannot run: their callers get an error, and they are kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chord
from celery.exceptions import NotRegistered
from kombu.compression import compress
from redis import Redis

from callers.client import Client
from celery_streams import dead_letters
from celery_streams.dead_letters import Letter
from cluster.errors import ClusterError, DeadLetter
from tests.support.local import Local
from tests.support.messages import body, message
from tests.support.seed import chance
from tests.support.waiting import eventually


class Malicious:
    """A value whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def redis(client: Client) -> Iterator[Any]:
    """A plain client of the cluster's Redis, without dead letters."""
    store: Any = client.app.backend
    with Redis(connection_pool=store.client.connection_pool) as redis:
        for queue in dead_letters.queues(redis):
            redis.delete(f"{queue}:dead")
        yield redis


def sent(redis: Any, envelope: dict[str, Any], **headers: Any) -> str:
    """Push a message as a program of another language does, and return its job's id."""
    job_id = f"add-{uuid4()}"
    envelope["headers"] = {**(envelope.get("headers") or {}), "id": job_id, **headers}
    redis.lpush("add", json.dumps(envelope))
    return job_id


def letter_of(redis: Any, job_id: str) -> Letter:
    """Return a job's dead letter, which is stored after its result."""

    def find() -> Letter | None:
        return next((each for each in dead_letters.letters(redis) if each.job_id == job_id), None)

    return eventually("dead letter", find)  # type: ignore[return-value]  # it exists then


def test_a_pickled_message_is_answered_with_an_error_and_runs_nothing(
    client: Client, tmp_path: Path
) -> None:
    trace = tmp_path / "unpickled"
    stranger = Celery(broker=client.app.conf.broker_read_url, set_as_current=False)
    stranger.conf.update(task_serializer="pickle", accept_content=["pickle"])
    job = stranger.send_task("add.tasks.add", (Malicious(trace), 6), queue="add")
    stranger.close()

    with pytest.raises(DeadLetter, match="untrusted content of type pickle"):
        client.get(client.app.AsyncResult(job.id))
    assert not trace.exists()
    assert client.call("add.tasks.add", 4, 6) == 10


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"body": body(b"{not json")}, "Expecting property name"),
        ({"body": body(b"\xff\xfe")}, "decode"),
        ({"body": body(b"[" * 100_000)}, "recursion depth"),
        ({"body": body(b"[[" + b"[" * 300 + b"]" * 300 + b"], {}, {}]")}, "nested too deeply"),
        ({"body": body(b'[[{"__type__": "bogus", "__value__": 1}], {}, {}]')}, "bogus"),
        ({"body": body(b"[[4, 6], {}]")}, r"body is not \[args, kwargs, embed\]"),
        ({"body": body(b"5")}, r"body is not \[args, kwargs, embed\]"),
        ({"body": body(b'[[4, 6], {}, {"callbacks": "x"}]')}, "'callbacks' is not a list"),
        ({"body": 5}, "body is not a string but a number"),
        ({"body": "abc"}, "not base64"),
        ({"content-type": "application/x-unheard-of"}, "untrusted content"),
        ({"content-type": 5}, "'content-type' is not a name"),
        ({"content-encoding": 5}, "'content-encoding' is not a name"),
        ({"properties": {}}, "no delivery_tag"),
    ],
)
def test_a_message_that_cannot_be_read_is_answered_and_kept(
    client: Client, redis: Any, parts: dict[str, Any], words: str
) -> None:
    envelope = message() | parts
    job_id = sent(redis, envelope)

    with pytest.raises(DeadLetter, match=words) as raised:
        client.get(client.app.AsyncResult(job_id))
    assert str(raised.value).endswith("; its message is kept in add:dead")
    letter = letter_of(redis, job_id)
    assert json.loads(letter.message) == envelope
    assert str(raised.value).startswith(letter.reason)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timelimit", "abc"),
        ("timelimit", [-1, None]),
        ("eta", "soon"),
        ("eta", ""),
        ("expires", 5),
        ("retries", None),
        ("group", []),
        ("stamped_headers", 5),
        ("task", None),
        ("task", []),
    ],
)
def test_a_header_that_would_end_a_worker_is_answered(
    client: Client, redis: Any, name: str, value: Any
) -> None:
    job_id = sent(redis, message(), **{name: value})

    with pytest.raises(DeadLetter, match=name):
        client.get(client.app.AsyncResult(job_id))
    letter_of(redis, job_id)


def test_an_unknown_compression_is_answered(client: Client, redis: Any) -> None:
    job_id = sent(redis, message(), compression="bogus")

    with pytest.raises(DeadLetter, match="bogus"):
        client.get(client.app.AsyncResult(job_id))


def test_an_unknown_task_is_celerys_error_and_a_dead_letter(client: Client, redis: Any) -> None:
    job_id = sent(redis, message(), task="add.tasks.unheard")

    with pytest.raises(NotRegistered, match="unheard"):
        client.get(client.app.AsyncResult(job_id))
    assert letter_of(redis, job_id).reason == "the worker has no task 'add.tasks.unheard'"


def test_a_chord_fails_with_a_member_that_no_worker_can_do(client: Client) -> None:
    members = [client.signature("add.tasks.add", 1, n).set(queue="add") for n in range(3)]
    members.append(client.signature("factorial.tasks.factorial", 5).set(queue="add"))
    total = client.signature("add.tasks.tsum")

    with pytest.raises(NotRegistered):
        client.call(chord(members, total, app=client.app))


def test_messages_of_protocol_1_are_done_or_answered(client: Client, redis: Any) -> None:
    old = {"task": "add.tasks.add", "args": [4, 6], "kwargs": {}}
    ids = [f"old-{uuid4()}" for _ in range(3)]
    changes: list[dict[str, Any]] = [{}, {"args": 5}, {"timelimit": "abc"}]
    for job_id, more in zip(ids, changes, strict=True):
        text = json.dumps({**old, "id": job_id, **more}).encode()
        redis.lpush("add", json.dumps(message() | {"headers": {}, "body": body(text)}))

    good, bad, ends_workers = (client.app.AsyncResult(job_id) for job_id in ids)
    assert client.get(good) == 10
    with pytest.raises(DeadLetter, match="args"):
        client.get(bad)
    with pytest.raises(DeadLetter, match="timelimit"):
        client.get(ends_workers)


def test_no_message_ends_a_worker_and_good_jobs_go_on(
    local: Local, client: Client, redis: Any
) -> None:
    workers = local.running("add")
    random = chance()
    count = 200
    for n in range(count):
        redis.lpush("add", random.randbytes(random.randrange(1, 200)))
        redis.publish("/0.celery.pidbox", random.randbytes(random.randrange(1, 200)))
        if n % 20 == 0:
            assert client.call("add.tasks.add", n, n) == 2 * n

    for raw in (b"5", b"{}", b"[" * 100_000, b'{"properties": {"delivery_tag": "x"}, "body": 5}'):
        redis.lpush("add", raw)
        redis.publish("/0.celery.pidbox", raw)
    eventually("dead letters", lambda: redis.xlen("add:dead") == count + 4)
    assert client.call("add.tasks.add", 4, 6) == 10
    assert local.running("add") == workers


def test_an_array_is_refused_by_a_task_that_wants_numbers(client: Client) -> None:
    matrix = client.signature("mat_mul.tasks.mat_mul", 2, 2, seed=7)
    with pytest.raises(TypeError, match="x must be a number"):
        client.call(matrix | client.signature("add.tasks.add", 1))


@pytest.mark.parametrize(
    ("headers", "properties"),
    [
        ({"timelimit": [10**400, None]}, {}),
        ({"timelimit": [None, -(10**400)]}, {}),
        ({"eta": "2026-01-01T00:00:00Z"}, {"priority": float("inf")}),
        ({"retries": 10**400}, {}),
        ({"root_id": {"a": 1}}, {}),
        ({"shadow": "x" * 1_000_000}, {}),
        ({}, {"reply_to": 7}),
        ({}, {"reply_to": "half \ud800"}),
        ({"compression": "application/x-bz2"}, {}),
        ({"compression": ["gzip"]}, {}),
        ({"argsrepr": {"a": 1}}, {}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_number_or_a_name_out_of_bounds_ends_no_worker(
    client: Client, redis: Any, headers: dict[str, Any], properties: dict[str, Any]
) -> None:
    job_id = sent(redis, message((), properties), **headers)

    with pytest.raises(DeadLetter, match="its message is kept in add:dead"):
        client.get(client.app.AsyncResult(job_id))
    assert client.call("add.tasks.add", 4, 6) == 10


@pytest.mark.parametrize("method", ["bzip2", "gzip", "lzma"])
def test_a_body_that_expands_without_end_is_a_dead_letter(
    client: Client, redis: Any, method: str
) -> None:
    bomb, content_type = compress(b"[" + b"0" * 100_000_000, method)
    job_id = sent(redis, message(body=body(bomb)), compression=content_type)

    with pytest.raises(DeadLetter, match=r"more than 16777216 bytes \(max_message_bytes\)"):
        client.get(client.app.AsyncResult(job_id))
    assert letter_of(redis, job_id).body


@pytest.mark.parametrize("method", ["bzip2", "gzip", "lzma"])
def test_a_body_that_is_compressed_honestly_is_read(client: Client, method: str) -> None:
    job = client.submit(client.signature("add.tasks.add", 4, 6).set(compression=method))

    assert client.get(job) == 10


@pytest.mark.parametrize("deliveries", [b"9" * 5000, b"nan", b"inf", b"-1", b"1e400", b"x"])
def test_an_entry_with_a_strange_number_of_deliveries_is_read(
    client: Client, redis: Any, deliveries: bytes
) -> None:
    job_id = f"add-{uuid4()}"
    entry = {"message": json.dumps(message({"id": job_id})), "deliveries": deliveries}
    redis.xadd("add:stream:0", entry)

    assert client.get(client.app.AsyncResult(job_id)) == 10


def test_a_message_that_is_too_large_is_a_dead_letter(client: Client, redis: Any) -> None:
    job_id = sent(redis, message() | {"filler": "x" * 17_000_000})

    with pytest.raises(DeadLetter, match=r"more than 16777216 \(max_message_bytes\)"):
        client.get(client.app.AsyncResult(job_id))
    assert client.call("add.tasks.add", 4, 6) == 10


@pytest.mark.parametrize(
    "option",
    [
        {"time_limit": 10**400},
        {"soft_time_limit": 1e300},
        {"shadow": "x" * 1_000_000},
        {"root_id": {"a": 1}},
        {"retries": 10**400},
        {"task_id": "x" * 1025},
        {"reply_to": 7},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_option_that_no_worker_could_take_is_refused_at_its_caller(
    client: Client, option: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError, ClusterError), match=f"{next(iter(option))}"):
        client.submit(client.signature("add.tasks.add", 4, 6).set(**option))
