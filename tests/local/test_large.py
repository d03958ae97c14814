"""Large values: how they are stored and removed, and the errors if they are missing."""

import json
import os
import signal
from collections.abc import Iterator
from time import sleep
from typing import Any

import gmpy2
import numpy as np
import pytest
from celery import chain, group

from callers.client import Client
from cluster.errors import DeadLetter, JobTimeout, OutOfMemory, Unreachable, Unreadable, ValueGone
from cluster.values.blobs import CHUNK, PREFIX
from cluster.values.codec import Packed
from mat_mul.examples import product
from tests.support.local import Local
from tests.support.waiting import eventually

#: A product of 18 MB, in several chunks, of which the last is not full.
LARGE = ("mat_mul.tasks.mat_mul", 1500, 2, 7)


@pytest.fixture
def redis(client: Client) -> Any:
    """The server's own client."""
    return _redis(client)


@pytest.fixture(scope="module")
def own_large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A cluster for products of up to 2 GB."""
    local = Local(tmp_path_factory.mktemp("large"), MAT_MUL_MAX_BYTES=str(2**31))
    try:
        local.wait_until_ready()
        yield local
    finally:
        local.stop()


def _redis(client: Client) -> Any:
    store: Any = client.app.backend
    return store.client


def _chunks(redis: Any) -> list[str]:
    return sorted(key.decode() for key in redis.scan_iter(f"{PREFIX}*"))


def test_a_large_result_is_exact_and_leaves_nothing(client: Client, redis: Any) -> None:
    np.testing.assert_allclose(client.call(*LARGE), product(1500, 2, 7), rtol=1e-12)

    assert _chunks(redis) == []


def test_a_large_result_of_a_signature_leaves_nothing_but_one_with_an_id_of_its_callers(
    client: Client, redis: Any
) -> None:
    signature = client.signature(*LARGE)

    client.call(group(signature, signature))
    assert _chunks(redis) == []
    client.call(signature.clone().set(task_id="chosen"))
    assert _chunks(redis) != []
    client.app.AsyncResult("chosen").forget()


def test_a_large_result_expires_with_the_result_and_is_removed_with_it(
    client: Client, redis: Any
) -> None:
    job = client.submit(*LARGE)
    np.testing.assert_array_equal(client.get(job), client.get(client.app.AsyncResult(job.id)))

    chunks = _chunks(redis)
    assert len(chunks) == -(-1500 * 1500 * 8 // CHUNK)
    expiries = [redis.ttl(key) for key in (*chunks, f"celery-task-meta-{job.id}")]
    assert 86_000 < min(expiries) <= max(expiries) <= 86_400
    job.forget()
    assert _chunks(redis) == []


def test_a_large_value_is_fetched_when_it_is_asked_for_and_not_before(
    client: Client, redis: Any
) -> None:
    job = client.submit(*LARGE)
    eventually("the job is done", lambda: job.state == "SUCCESS")
    redis.delete(*_chunks(redis))

    assert job.successful()
    assert job.date_done
    with pytest.raises(ValueGone):
        job.get()
    job.forget()


def test_no_large_value_passes_through_pub_sub_or_onto_the_disk(client: Client, redis: Any) -> None:
    with redis.pubsub() as notices:
        notices.psubscribe("*")
        assert notices.get_message(timeout=10)["type"] == "psubscribe"
        before = redis.info("persistence")["aof_current_size"]
        client.call(*LARGE)
        after = redis.info("persistence")["aof_current_size"]
        sizes = []
        while message := notices.get_message(timeout=0):
            sizes.append(len(message["data"]))

    assert 0 < max(sizes) < 1000
    assert after - before < 100_000


def test_a_large_argument_is_kept_until_the_job_is_done(client: Client, redis: Any) -> None:
    numbers = [float(i) for i in range(300_000)]
    later = client.submit(client.signature("add.tasks.tsum", numbers).set(countdown=3600))

    assert len(_chunks(redis)) == -(-len(json.dumps(numbers)) // CHUNK)
    later.revoke()
    redis.delete(*_chunks(redis))

    assert client.call("add.tasks.tsum", numbers) == sum(numbers)
    assert client.call("add.tasks.add", 7**200_000, 1) == 7**200_000 + 1
    eventually("the arguments are removed", lambda: not _chunks(redis))


def test_a_failed_jobs_large_argument_goes_with_it(client: Client, redis: Any) -> None:
    with pytest.raises(TypeError, match=r"numbers\[300000\]"):
        client.get(client.app.send_task("add.tasks.tsum", ([*range(300_000), "x"],)))

    eventually("the argument is removed", lambda: not _chunks(redis))


def test_a_large_value_goes_from_job_to_job(client: Client, redis: Any) -> None:
    factorial = client.signature("factorial.tasks.factorial", 100_000)
    one_more = client.signature("add.tasks.add", 1)

    assert client.call(chain(factorial, one_more)) == gmpy2.fac(100_000) + 1
    assert client.call(
        group(factorial, factorial) | client.signature("add.tasks.tsum")
    ) == 2 * gmpy2.fac(100_000)
    redis.delete(*_chunks(redis))


def test_celerys_own_results_give_large_values(client: Client, redis: Any) -> None:
    jobs = client.submit(group(client.signature(*LARGE), client.signature(*LARGE)))

    for value in jobs.get(timeout=60):
        np.testing.assert_allclose(value, product(1500, 2, 7), rtol=1e-12)
    jobs.forget()
    assert _chunks(redis) == []


@pytest.mark.parametrize("which", [0, 4, 8])
def test_a_missing_chunk_is_one_line(client: Client, redis: Any, which: int, local: Local) -> None:
    job = client.submit(*LARGE)
    client.app.AsyncResult(job.id).get(timeout=60)
    redis.delete(next(key for key in _chunks(redis) if key.endswith(f".{which}")))

    with pytest.raises(ValueGone, match="it expired, was removed"):
        client.get(client.app.AsyncResult(job.id))
    done = local.command("callers.result", job.id)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the value is gone")
    job.forget()
    assert _chunks(redis) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 8}, "8 bytes for an array"),
        ({"chunk": CHUNK // 2}, "a chunk has 1048576 bytes instead of 524288"),
        ({"key": "celery-task-meta-x"}, "invalid reference"),
        ({"key": PREFIX + "nobodys"}, "it expired, was removed"),
    ],
)
def test_a_result_that_lies_is_refused(
    client: Client, redis: Any, changes: dict[str, Any], words: str
) -> None:
    job = client.submit(*LARGE)
    job.get(timeout=60)
    key = f"celery-task-meta-{job.id}"
    meta = json.loads(redis.get(key))
    meta["result"]["__value__"]["data"].update(changes)
    redis.set(key, json.dumps(meta))

    with pytest.raises((Unreadable, ValueGone), match=words):
        client.get(client.app.AsyncResult(job.id))
    redis.delete(key, *_chunks(redis))


def test_a_connection_that_is_cut_while_a_value_is_fetched_delays_it_only(
    local: Local, client: Client, redis: Any
) -> None:
    cuts: list[int] = []

    def cut(done: int, size: int) -> None:
        if not cuts:
            cuts.extend(_cut(redis, "get"))

    with _watching(local, cut) as watching:
        np.testing.assert_allclose(watching.call(*LARGE), product(1500, 2, 7), rtol=1e-12)
    assert cuts
    assert _chunks(redis) == []


def test_a_connection_that_is_cut_while_an_argument_is_sent_delays_it_only(
    local: Local, redis: Any
) -> None:
    cuts: list[int] = []

    def cut(done: int, size: int) -> None:
        if not cuts:
            cuts.extend(_cut(redis, "set"))

    numbers = [0.5 + i for i in range(1_000_000)]
    with _watching(local, cut) as watching:
        assert watching.call("add.tasks.tsum", numbers) == sum(numbers)
    assert cuts
    eventually("the argument is removed", lambda: not _chunks(redis))


def test_a_connection_that_is_cut_again_and_again_ends_in_one_line(
    local: Local, redis: Any
) -> None:
    with (
        _watching(local, lambda done, size: _cut(redis, "set")) as watching,
        pytest.raises((Unreachable, JobTimeout), match=r"cannot reach the|bytes of a large value"),
    ):
        watching.call("add.tasks.tsum", [0.5 + i for i in range(1_000_000)], timeout=2)
    assert _chunks(redis) == []


def test_the_large_argument_of_a_chords_body_is_stored_once(client: Client, redis: Any) -> None:
    members = group(client.signature("add.tasks.longtime_add", i, 0, 1) for i in range(4))
    body = client.signature("mat_mul.tasks.multiply", np.ones((4, 100_000)))
    job = client.submit(members | body)

    assert len(_chunks(redis)) == -(-4 * 100_000 * 8 // CHUNK)
    np.testing.assert_array_equal(client.get(job), np.full(100_000, 6.0))
    job.forget()
    eventually("the argument is removed", lambda: not _chunks(redis))


#: An argument of three chunks, and their sum.
NUMBERS = [0.5 + i for i in range(150_000)]


def test_no_job_reads_or_removes_an_argument_of_another(client: Client, redis: Any) -> None:
    later = client.submit(client.signature("add.tasks.tsum", NUMBERS).set(countdown=3600))
    chunks = _chunks(redis)
    key, size = chunks[0].rpartition(".")[0], len(json.dumps(NUMBERS, separators=(",", ":")))
    stolen = Packed("json", {"data": {"key": key, "size": size, "chunk": CHUNK}})
    part = key.rpartition("-")[2]

    # Directly, with a similar id, in a list, by name, and in a chain's second job.
    thieves = [
        client.signature("add.tasks.tsum", stolen),
        client.signature("add.tasks.tsum", stolen).set(task_id=f"{later.id}-{part}"),
        client.signature("add.tasks.tsum", stolen).set(task_id=later.id.rpartition("-")[0]),
        client.signature("add.tasks.tsum", [1, stolen]),
        client.signature("add.tasks.tsum", numbers=stolen),
        client.signature("add.tasks.add", 1, 2) | client.signature("add.tasks.add", stolen),
    ]
    for thief in thieves:
        with pytest.raises(Unreadable, match="refers to an argument of another job"):
            client.call(thief)
        assert _chunks(redis) == chunks
    assert client.call("add.tasks.add", 4, 6) == 10
    later.revoke()
    redis.delete(*chunks)


def test_a_stored_result_does_not_lead_to_an_argument(client: Client, redis: Any) -> None:
    later = client.submit(client.signature("add.tasks.tsum", NUMBERS).set(countdown=3600))
    chunks = _chunks(redis)
    reference = {"key": chunks[0].rpartition(".")[0], "size": 8, "chunk": CHUNK}
    result = {"__type__": "int", "__value__": {"data": reference}}
    meta = {"status": "SUCCESS", "result": result, "task_id": "thief"}
    redis.set("celery-task-meta-thief", json.dumps(meta))

    job = client.app.AsyncResult("thief")
    with pytest.raises(Unreadable, match="refers to an argument of another job"):
        client.get(job)
    job.forget()
    assert _chunks(redis) == chunks
    later.revoke()
    redis.delete(*chunks)


def test_a_result_that_names_anothers_is_read_and_does_not_remove_it(
    client: Client, redis: Any
) -> None:
    job = client.submit(*LARGE)
    value, chunks = client.get(job), _chunks(redis)
    meta = json.loads(redis.get(f"celery-task-meta-{job.id}")) | {"task_id": "other"}
    redis.set("celery-task-meta-other", json.dumps(meta))

    other = client.app.AsyncResult("other")
    np.testing.assert_array_equal(client.get(other), value)
    other.forget()
    assert _chunks(redis) == chunks
    job.forget()
    assert _chunks(redis) == []


@pytest.mark.parametrize("job_id", ["an id/of words", "x" * 500, "ü", "add:1-2"])
def test_any_id_may_have_large_values(client: Client, redis: Any, job_id: str) -> None:
    job = client.submit(client.signature("add.tasks.tsum", NUMBERS).set(task_id=job_id))

    assert client.get(job) == sum(NUMBERS)
    job.forget()
    eventually("the argument is removed", lambda: not _chunks(redis))


def test_large_arguments_of_all_that_follows_a_job_arrive(client: Client, redis: Any) -> None:
    def total(numbers: Any) -> Any:
        return client.signature("add.tasks.tsum", numbers)

    add = client.signature("add.tasks.add", 1, 2)
    linked = [total(NUMBERS).set(immutable=True), total(NUMBERS).set(immutable=True)]
    names = [f"linked-{number}" for number in range(len(linked))]
    for signature, name in zip(linked, names, strict=True):
        add.link(signature.set(task_id=name))
    next_ones = [total(NUMBERS).set(immutable=True) for _ in range(2)]
    job = client.submit(chain(add, *next_ones))

    assert client.get(job) == sum(NUMBERS)
    for name in names:
        assert client.get(client.app.AsyncResult(name)) == sum(NUMBERS)
    eventually("the arguments are removed", lambda: not _chunks(redis))


def test_large_arguments_of_a_callback_without_an_id_arrive(client: Client, redis: Any) -> None:
    add = client.signature("add.tasks.add", 1, 2)
    for last in (1.0, 2.0):
        add.link(client.signature("add.tasks.tsum", [*NUMBERS, last]).set(immutable=True))
    job = client.submit(add)

    assert client.get(job) == 3
    [called] = job.children
    assert client.get(called) == [sum(NUMBERS) + last for last in (1.0, 2.0)]
    eventually("the arguments are removed", lambda: not _chunks(redis))


@pytest.mark.parametrize("kind", ["chain", "group", "chord"])
def test_large_arguments_in_a_chords_body_of_any_kind_arrive(
    client: Client, redis: Any, kind: str
) -> None:
    def total() -> Any:
        return client.signature("add.tasks.tsum", NUMBERS).set(immutable=True)

    sums = client.signature("add.tasks.tsum")
    body: Any = {
        "chain": chain(sums, total()),
        "group": group(total(), total()),
        "chord": group(total(), total()) | sums,
    }[kind]
    job = client.submit(group(client.signature("add.tasks.add", i, i) for i in range(3)) | body)

    expected = {"chain": sum(NUMBERS), "group": 2 * [sum(NUMBERS)], "chord": 2 * sum(NUMBERS)}
    assert client.get(job) == expected[kind]
    eventually("the arguments are removed", lambda: not _chunks(redis))


@pytest.mark.parametrize(
    "reference",
    [
        {"key": "celery-blob-argument-x", "size": 2**62, "chunk": 1},
        {"key": "celery-blob-argument-x", "size": 20 * 2**30, "chunk": 2**20},
        {"key": "celery-blob-argument-x", "size": "x", "chunk": None},
        {"key": "celery-blob-argument-x"},
        {"key": 7, "size": 8, "chunk": 2**20},
        {"size": 8, "chunk": 2**20},
        {},
    ],
)
def test_a_message_with_a_wrong_reference_holds_up_no_job(
    local: Local, client: Client, reference: dict[str, Any]
) -> None:
    shown = len(local.output())
    lie = Packed("int", {"data": reference})
    with pytest.raises((DeadLetter, Unreadable, ValueGone)):
        client.call("add.tasks.add", lie, 1, timeout=20)

    assert client.call("add.tasks.add", 4, 6, timeout=20) == 10
    # The worker logs the job's error, and no error of its work after the job.
    assert "Exception raised outside body" not in local.output()[shown:]


def test_an_invalid_result_is_refused_and_removed(client: Client, redis: Any) -> None:
    key = "celery-task-meta-lie"
    result = {"__type__": "int", "__value__": None}
    redis.set(key, json.dumps({"status": "SUCCESS", "result": result, "task_id": "lie"}))

    job = client.app.AsyncResult("lie")
    with pytest.raises(Unreadable, match="invalid 'int' value"):
        client.get(job)
    job.forget()
    assert not redis.exists(key)


def test_an_argument_that_cannot_be_sent_takes_those_before_along(local: Local, redis: Any) -> None:
    complete: list[int] = []

    def interrupt(done: int, size: int) -> None:
        if complete:
            raise KeyboardInterrupt
        if done == size:
            complete.append(size)

    large = np.ones(10**6)
    with _watching(local, interrupt) as watching, pytest.raises(KeyboardInterrupt):
        watching.call("mat_mul.tasks.multiply", large, large)
    assert complete == [large.nbytes]
    assert _chunks(redis) == []


def test_an_array_is_printed_whole_by_its_id(local: Local, client: Client) -> None:
    job = client.submit("mat_mul.tasks.mat_mul", 50, 2, 7)

    printed = local.command("callers.result", job.id).stdout
    read = np.array(printed.replace("[", " ").replace("]", " ").split(), float)
    np.testing.assert_array_equal(read.reshape(50, 50), client.get(job))


def test_a_value_that_does_not_arrive_in_time_is_an_error(local: Local, client: Client) -> None:
    job = client.submit(*LARGE)
    eventually("the job is done", lambda: job.state == "SUCCESS")
    with (
        _watching(local, lambda done, size: sleep(3)) as slow,
        pytest.raises(JobTimeout, match=r"within 2 s: \d+ of 18000000 bytes"),
    ):
        slow.get(slow.app.AsyncResult(job.id), timeout=2)
    job.forget()


def test_a_result_of_more_than_512_mb_arrives(own_large: Local) -> None:
    with own_large.client() as client:
        value = client.call("mat_mul.tasks.mat_mul", 8400, 1, 7)

    assert value.nbytes > 2**29
    rng = np.random.default_rng(7)
    a, b = rng.random((8400, 1)), rng.random((1, 8400))
    assert (value[::1000] == a[::1000] @ b).all()


def test_a_result_that_redis_has_no_memory_for_fails_its_job(own_large: Local) -> None:
    with own_large.client() as client:
        redis = _redis(client)
        eventually(  # what was removed is freed in the background
            "room",
            lambda: (
                redis.info("memory")["lazyfree_pending_objects"] == 0
                and redis.info("memory")["used_memory"] < 2**26
            ),
        )
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 5 * 2**20)

        with pytest.raises(OutOfMemory, match="the Redis server has no memory for a value of"):
            client.call(*LARGE)
        with pytest.raises(OutOfMemory, match="the Redis server has no memory for a value of"):
            client.call("add.tasks.tsum", [0.5 + i for i in range(1_000_000)])

        assert _chunks(redis) == []
        assert client.call("add.tasks.add", 4, 6) == 10
        redis.config_set("maxmemory", 0)


def test_redis_keeps_large_arguments_when_it_is_killed_and_large_results_not(
    own_large: Local,
) -> None:
    numbers = [0.5 + i for i in range(200_000)]
    with own_large.client() as client:
        later = client.submit(client.signature("add.tasks.tsum", numbers).set(countdown=3))
        done = client.submit(*LARGE)
        done.get(timeout=60)
        [killed] = own_large.running("server")
        os.kill(killed.pid, signal.SIGKILL)
        eventually("another server", lambda: own_large.running("server") not in ([], [killed]))

        with pytest.raises(ValueGone, match="was lost when Redis restarted"):
            client.get(client.app.AsyncResult(done.id))
        assert client.get(later) == sum(numbers)


def _cut(redis: Any, command: str) -> list[int]:
    """Cut the connections whose last command is this, and return their ids."""
    ids = [int(each["id"]) for each in redis.client_list() if each["cmd"] == command]
    for number in ids:
        redis.client_kill_filter(_id=str(number))
    return ids


def _watching(local: Local, on_transfer: Any) -> Client:
    url = local.client().app.conf.broker_write_url
    return Client(url, url, on_transfer=on_transfer)
