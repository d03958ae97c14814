"""Plain jobs, which are sent past most of Celery: the same messages, errors and promises."""

import os
import socket
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import chunks, group, signals, xmap, xstarmap
from kombu.utils.json import loads

from callers.client import Client
from celery_streams.errors import QueueFull
from celery_streams.producer.sender import Sender
from cluster.errors import UnknownTask
from local.server import ROOT
from tests.support.local import Local
from tests.support.seed import chance
from tests.support.store import calls

ADD = "add.tasks.add"
QUEUES = ("add", "factorial", "mat_mul")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A server without any worker, that tests share."""
    server = Local(tmp_path_factory.mktemp("server"), "--server-only")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def caller(server: Local) -> Iterator[Client]:
    """A caller that has sent a job and a group before, with all queues empty."""
    with server.client() as caller:
        caller.app.finalize()  # other tests' imports may have made tasks of ours known here
        caller.submit(ADD, 0, 0)
        group([caller.signature(ADD, 0, 0)]).apply_async()
        redis(caller).flushdb()
        yield caller


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each command carried that plain jobs were sent by."""
    sent: list[int] = []
    publish = Sender.publish

    def counted(self: Sender, key: str, most: int, messages: Any) -> None:
        sent.append(len(messages))
        publish(self, key, most, messages)

    monkeypatch.setattr(Sender, "publish", counted)
    return sent


def redis(caller: Client) -> Any:
    """Return the plain client of a caller's server."""
    store: Any = caller.app.backend
    return store.client


def envelopes(caller: Client) -> list[dict[str, Any]]:
    """Return all messages that wait, the oldest of each stream first, and remove them."""
    client = redis(caller)
    streams = sorted(client.scan_iter("*:stream:*"))
    found = [each[b"message"] for key in streams for _, each in client.xrange(key)]
    found += [each.partition(b":")[2] for each in client.zrange("add:delayed", 0, -1)]
    found += client.lrange("add\x06\x163", 0, -1)
    client.delete("add:delayed", "add\x06\x163", *streams)
    return [*map(loads, found)]


def messages(caller: Client) -> list[dict[str, Any]]:
    """Return the messages that wait with their bodies decoded, and remove them."""
    found = envelopes(caller)
    for each in found:
        each["body"] = loads(b64decode(each["body"]))
    return found


def without_tag(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without what is another in each."""
    properties = message["properties"]
    assert len(properties.pop("delivery_tag")) == len("0e984725-c51c-4bf4-9960-e1c80e27aba0")
    return message


# What is sent ----------------------------------------------------------------------------


def calls_by_chance() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield arguments and options of jobs."""
    random = chance()
    values: list[Any] = [0, -7, 2**80, 1.5, float("inf"), True, None]
    values += ["text", "it's", 'q"', "%s", "é\n", ""]
    values += [[1, [2, [3, [4]]]], {"a": {"b": [None]}}, [], {}, "x" * 2000, [*range(500)], (1, 2)]
    for number in range(100):
        options: dict[str, Any] = {"task_id": f'job-{number}-%-"'}
        options["args"] = random.choices(values, k=random.randrange(4))
        if random.random() < 0.5:
            options["args"] = tuple(options["args"])
        if random.random() < 0.3:
            options["kwargs"] = {"x": random.choice(values), "ÿ%(id)s": random.choice(values)}
        if random.random() < 0.3:
            options |= {"group_id": "a-group", "group_index": number, "root_id": "root"}
        if random.random() < 0.3:
            options |= {"reply_to": "me", "parent_id": "parent"}
        if random.random() < 0.3:
            options["priority"] = random.choice(["high", "normal", "low", 0, 4, 9])
        if random.random() < 0.3:
            options["ignore_result"] = random.choice([True, False])
        if random.random() < 0.3:
            options |= {"time_limit": random.choice([5, 5.0]), "soft_time_limit": 3}
        yield random.choice([ADD, "factorial.tasks.factorial", "mat_mul.tasks.tile"]), options


def test_messages_are_those_of_celery(caller: Client, plainly: list[int]) -> None:
    jobs = [*calls_by_chance()]
    stock = Client(str(caller.app.conf.broker_write_url), str(caller.app.conf.result_backend))
    stock.app.finalize()
    stock.app.submission.try_send = lambda *_: False  # type: ignore[method-assign]
    for task, options in jobs:
        caller.app.send_task(task, **options)  # teaches what the task's messages are like
    messages(caller)
    plainly.clear()
    for task, options in jobs:
        caller.app.send_task(task, **options)
    plain = messages(caller)
    assert plainly == [1] * len(jobs)
    for task, options in jobs:
        reply_to = options.get("reply_to") or caller.app.thread_oid
        stock.app.send_task(task, **{**options, "reply_to": reply_to})
    expected = messages(stock)
    stock.close()

    assert len(plain) == len(jobs)
    for one, other in zip(plain, expected, strict=True):
        assert repr(without_tag(one)) == repr(without_tag(other))


def test_messages_of_chunks_are_those_of_celery(caller: Client, plainly: list[int]) -> None:
    rows = [(i, i / 7) for i in range(900)]
    jobs = [
        chunks(caller.signature(ADD), rows, 400, app=caller.app),
        xmap(caller.signature("add.tasks.tsum"), [[1, 2], [3]], app=caller.app),
        xstarmap(caller.signature(ADD), [(1, "x" * 3000), ("'", None)], app=caller.app),
    ]
    for job in jobs:  # teaches what the messages are like
        job.apply_async()
    messages(caller)
    plainly.clear()
    for job in jobs:
        job.apply_async()
    plain = messages(caller)
    assert plainly == [3, 1, 1]
    caller.app.submission.try_send = lambda *_: False  # type: ignore[method-assign]
    for job in jobs:
        job.apply_async()
    expected = messages(caller)

    assert len(plain) == len(expected) == 5
    for one, other in zip(plain, expected, strict=True):
        for each in (one, other):
            for name in ("id", "root_id", "group"):
                each["headers"][name] = None
            each["properties"]["correlation_id"] = None
        assert repr(without_tag(one)) == repr(without_tag(other))


def test_ids_and_tags_are_uuids_of_their_own(caller: Client) -> None:
    ids = [caller.submit(ADD, 1, 2).id for _ in range(50)]
    sent = messages(caller)

    assert [each["headers"]["id"] for each in sent] == ids
    tags = {each["properties"]["delivery_tag"] for each in sent}
    assert len(tags | {*ids}) == 100
    assert all(len(each) == 36 and each[14] == "4" and each[19] in "89ab" for each in {*ids, *tags})


def test_a_task_may_have_a_percent_sign_in_its_name(
    caller: Client, plainly: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "add.tasks.100%d"
    router: Any = caller.app.amqp.router
    monkeypatch.setitem(router.routes[0].map, name, {"queue": "add"})

    for _ in range(2):
        caller.app.send_task(name, (1, 2))

    assert plainly == [1]
    first, second = messages(caller)
    assert first["headers"]["task"] == second["headers"]["task"] == name


def test_a_plain_job_takes_one_command(caller: Client) -> None:
    caller.submit(ADD, 1, 2)
    called = calls(redis(caller))
    caller.submit(ADD, 1, 2)

    assert called() == {"evalsha": 1, "xlen": 1, "xadd": 1}


# What is not plain -----------------------------------------------------------------------

NOT_PLAIN: dict[str, dict[str, Any]] = {
    "countdown": {"countdown": 5},
    "eta": {"eta": "2100-01-01T00:00:00+00:00"},
    "expires": {"expires": 60},
    "link": {"link": []},
    "link_error": {"link_error": []},
    "chain": {"chain": []},
    "shadow": {"shadow": "name"},
    "serializer": {"serializer": "yaml"},
    "compression": {"compression": "zlib"},
    "queue": {"queue": "factorial"},
    "routing_key": {"routing_key": "add"},
    "delivery_mode": {"delivery_mode": 1},
    "retries": {"retries": 2},
    "complex": {"args": (1j, 2)},
    "long": {"args": (10**5000, 2)},
    "large": {"args": ("x" * 2**21, 2)},
    "bytes": {"kwargs": {"x": b"1"}},
    "no list": {"args": "12"},
    "index is text": {"group_index": "3"},
    "id is a number": {"parent_id": 7},
    "id is bytes": {"group_id": b"1"},
    "no mapping": {"kwargs": [1]},
}


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_every_other_job_goes_the_way_of_celery(
    caller: Client, plainly: list[int], what: str
) -> None:
    options = {"args": (1, 2), "task_id": "job", "reply_to": "me", **NOT_PLAIN[what]}
    told = outcome(lambda: caller.app.send_task(ADD, **options), caller)
    assert plainly == []
    caller.app.submission.try_send = lambda *_: False  # type: ignore[method-assign]

    assert told == outcome(lambda: caller.app.send_task(ADD, **options), caller)


def outcome(function: Callable[[], Any], caller: Client) -> Any:
    """Return the messages that a function sends, without what is another in each; or its error."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - it is compared
        return repr(error)
    found = [without_tag(each) for each in envelopes(caller)]
    assert len(found) == 1
    for name in ("eta", "expires"):  # the clock goes on
        found[0]["headers"][name] = found[0]["headers"][name] is not None
    body = b64decode(found[0].pop("body")).replace(b" ", b"")
    return repr(found), len(body)  # what is large is under a name of its own


def test_a_receiver_of_a_signal_is_told_as_by_celery(
    caller: Client, plainly: list[int], receivers: list[Any]
) -> None:
    for number, options in enumerate([{"task_id": "a"}, {"task_id": "b", "priority": "high"}]):
        caller.app.send_task(ADD, (1, 2), **options)  # teaches what the messages are like
        plainly.clear()
        receivers.clear()
        messages(caller)
        told, sent = sent_with(caller, receivers, number, options)
        assert plainly == [1]
        with_celery, sent_by_celery = sent_with(caller, receivers, number, options, by_celery=True)
        assert plainly == [1]

        assert [name for name, _ in told] == ["before_task_publish", "after_task_publish"]
        assert told == with_celery
        assert sent == sent_by_celery
        assert sent[0]["headers"]["traceparent"] == "00-ab-cd-01"
        assert sent[0]["body"][1] == {"added": True}


def sent_with(
    caller: Client, told: list[Any], number: int, options: Any, *, by_celery: bool = False
) -> tuple[list[Any], list[Any]]:
    """Send a job; return what receivers were told, and the message."""
    with pytest.MonkeyPatch.context() as patch:
        if by_celery:
            patch.setattr(caller.app.submission, "try_send", lambda *_: False)
        caller.app.send_task(ADD, [number, 2], {"x": None}, reply_to="me", **options)
    found, told[:] = [*told], []
    return found, [without_tag(each) for each in messages(caller)]


@pytest.fixture
def receivers() -> Iterator[list[Any]]:
    """What receivers of the publishing signals are told; the first one adds to the message."""
    told: list[Any] = []

    def before(**about: Any) -> None:
        about["headers"]["traceparent"] = "00-ab-cd-01"
        about["body"][1].clear()
        about["body"][1]["added"] = True
        tell("before_task_publish", about)

    def after(**about: Any) -> None:
        tell("after_task_publish", about)

    def tell(name: str, about: dict[str, Any]) -> None:
        told.append((name, repr({key: each for key, each in about.items() if key != "signal"})))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    yield told
    signals.before_task_publish.disconnect(before)
    signals.after_task_publish.disconnect(after)


def test_receivers_are_told_of_each_job_of_a_batch_and_a_group(
    caller: Client, plainly: list[int], receivers: list[Any]
) -> None:
    group(caller.signature(ADD, i, i) for i in range(3)).apply_async()
    assert plainly == [3]
    jobs = {f"job-{i}": (i, i) for i in range(4)}
    assert caller.app.submission.send_batch(ADD, jobs, reply_to="me") == []
    assert plainly == [3, 4]

    names = [name for name, _ in receivers]
    assert names.count("before_task_publish") == names.count("after_task_publish") == 7
    sent = messages(caller)
    assert all(each["headers"]["traceparent"] for each in sent)
    assert len(sent) == 7


def test_a_receiver_may_change_where_a_job_goes(caller: Client, plainly: list[int]) -> None:
    def before(properties: dict[str, Any], **_: Any) -> None:
        properties["priority"] = 0

    signals.before_task_publish.connect(before)
    try:
        job = caller.submit(ADD, 1, 2)
    finally:
        signals.before_task_publish.disconnect(before)

    [(_, fields)] = redis(caller).xrange("add:stream:0")
    assert loads(fields[b"message"])["headers"]["id"] == job.id
    assert plainly == []


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("x")])
def test_an_error_of_a_receiver_holds_up_no_job(
    caller: Client, plainly: list[int], error: Exception
) -> None:
    def before(**_: Any) -> None:
        raise error

    signals.before_task_publish.connect(before)
    try:
        caller.submit(ADD, 1, 2)
    finally:
        signals.before_task_publish.disconnect(before)

    assert (len(messages(caller)), plainly) == (1, [1])


def test_receivers_are_told_once_if_the_connection_is_lost(
    caller: Client, receivers: list[Any]
) -> None:
    redis(caller).client_kill_filter(_type="normal", skipme=True)
    job = caller.submit(ADD, 1, 2)

    assert [name for name, _ in receivers] == ["before_task_publish", "after_task_publish"]
    assert [each["headers"]["id"] for each in messages(caller)] == [job.id]


def test_own_headers_are_those_of_celery(caller: Client, plainly: list[int]) -> None:
    options = {"task_id": "job", "reply_to": "me", "headers": {"x": 1, "baggage": "a=b", "é": [2]}}
    told = outcome(lambda: caller.app.send_task(ADD, (1, 2), **options), caller)
    assert plainly == [1]
    caller.app.submission.try_send = lambda *_: False  # type: ignore[method-assign]

    assert told == outcome(lambda: caller.app.send_task(ADD, (1, 2), **options), caller)


def test_a_receiver_of_a_signal_of_old_is_told(caller: Client, plainly: list[int]) -> None:
    told: list[Any] = []

    def tell(**about: Any) -> None:
        told.append(about["sender"])

    signals.task_sent.connect(tell)
    try:
        caller.submit(ADD, 1, 2)
    finally:
        signals.task_sent.disconnect(tell)

    assert (told, plainly) == ([ADD], [])


def test_an_event_of_each_job_is_sent(caller: Client, plainly: list[int]) -> None:
    caller.app.conf.task_send_sent_event = True
    caller.submit(ADD, 1, 2)
    caller.submit(ADD, 1, 2)

    assert plainly == []


def test_kombus_lists_have_nothing_plain(server: Local) -> None:
    script = (
        "from callers.client import Client\n"
        "app = Client().app\n"
        "for _ in range(2): app.send_task('add.tasks.add', (1, 2))\n"
        "print(app.backend.client.llen('add\\x06\\x163'), *app.submission._templates.values())\n"
    )
    environment = {**server.env, "REDIS_TRANSPORT": "lists"}
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stdout.split() == ["2", "None"], run.stderr


def test_what_is_wrong_is_said_as_before(caller: Client) -> None:
    with pytest.raises(UnknownTask, match=r"did you mean 'add.tasks.add'"):
        caller.submit("add.tasks.ad", 1, 2)
    for priority in ("urgent", True, 10, [1]):
        with pytest.raises(ValueError, match="priority must be"):
            caller.app.send_task(ADD, (1, 2), priority=priority)

    assert messages(caller) == []


# What can go wrong -------------------------------------------------------------------------


def test_a_full_queue_refuses(server: Local, plainly: list[int]) -> None:
    with server.client() as caller:
        redis(caller).flushdb()
        caller.app.finalize()
        caller.app.conf.broker_transport_options = {
            **caller.app.conf.broker_transport_options,
            "queue_max_length": 3,
        }
        for _ in range(3):
            caller.submit(ADD, 1, 2)
        with pytest.raises(QueueFull, match="holds 3 messages"):
            caller.submit(ADD, 1, 2)
        # Celery sends these.
        expiring = group(caller.signature(ADD, i, 2).set(expires=60) for i in range(2))
        with pytest.raises(QueueFull, match="holds 3 messages"):
            caller.submit(expiring)
        with pytest.raises(QueueFull, match="holds 3 messages"):
            expiring.apply_async()

        assert plainly == [1, 1, 1]
        assert len(messages(caller)) == 3


def test_a_lost_connection_loses_no_job(caller: Client, plainly: list[int]) -> None:
    caller.submit(ADD, 0, 0)
    redis(caller).client_kill_filter(_type="normal", skipme=True)
    jobs = [caller.submit(ADD, i, i).id for i in range(3)]

    assert [each["headers"]["id"] for each in messages(caller)[1:]] == jobs
    assert plainly == [1] * 4  # the second one failed, and went by Celery


def test_a_server_that_forgot_the_script_is_no_error(caller: Client, plainly: list[int]) -> None:
    redis(caller).script_flush()
    caller.submit(ADD, 1, 2)

    assert (len(messages(caller)), plainly) == (1, [1])


def test_a_connection_that_breaks_off_loses_no_job(caller: Client) -> None:
    caller.submit(ADD, 0, 0)
    sender = caller.app.submission._sender
    assert sender
    sender._idle[0]._sock.shutdown(socket.SHUT_RDWR)
    job = caller.submit(ADD, 1, 2)

    assert messages(caller)[-1]["headers"]["id"] == job.id


def test_a_forked_process_sends_on_connections_of_its_own(caller: Client) -> None:
    caller.submit(ADD, 0, 0)
    child = os.fork()
    if not child:
        try:
            for _ in range(20):
                caller.submit(ADD, 1, 1)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - no test goes on in a child
            os._exit(1)
    for _ in range(20):
        caller.submit(ADD, 2, 2)
    _, status = os.waitpid(child, 0)
    sent = messages(caller)

    assert status == 0
    assert sorted(each["body"][0][0] for each in sent) == [0] + [1] * 20 + [2] * 20
    origins = {each["headers"]["origin"].split("@")[0] for each in sent}
    assert origins == {f"gen{os.getpid()}", f"gen{child}"}


def test_a_forked_process_shares_no_connection(caller: Client) -> None:
    caller.submit(ADD, 0, 0)
    sender = caller.app.submission._sender
    assert sender
    (connection,) = sender._idle
    child = os.fork()
    if not child:
        sender.publish("add:stream:3", 10, [b"{}"])
        os._exit(connection in sender._idle)
    _, status = os.waitpid(child, 0)

    assert status == 0
    assert sender._idle == [connection]


def test_threads_send_at_once(caller: Client) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(10)
        for i in range(50):
            caller.submit(ADD, number, i)

    with ThreadPoolExecutor(8) as pool:
        [*pool.map(work, range(8))]
    sent = [each["body"][0] for each in messages(caller)]

    assert sorted(sent) == [[number, i] for number in range(8) for i in range(50)]


# Together --------------------------------------------------------------------------------


def test_a_group_is_sent_together(caller: Client, plainly: list[int]) -> None:
    jobs: Any = group(caller.signature(ADD, i, i) for i in range(1100)).apply_async()
    sent = messages(caller)

    assert plainly == [500, 500, 100]
    assert [each["headers"]["id"] for each in sent] == [job.id for job in jobs]
    assert [each["headers"]["group_index"] for each in sent] == [*range(1100)]
    assert {each["headers"]["group"] for each in sent} == {jobs.id}
    assert {each["headers"]["root_id"] for each in sent} != {None}


def test_a_group_that_fails_midway_sends_nothing(caller: Client) -> None:
    jobs = group(caller.signature(ADD, 1, 1), caller.signature(ADD, object(), 1))
    with pytest.raises(Exception, match="JSON serializable"):
        jobs.apply_async()

    assert messages(caller) == []


def test_what_a_member_of_a_group_sends_besides_is_sent_at_once(caller: Client) -> None:
    others: list[str] = []
    found: list[str] = []

    class Audited(caller.app.Task):  # type: ignore[name-defined,misc]  # its class is a setting
        def apply_async(self, *args: Any, **options: Any) -> Any:
            others.append(caller.submit(ADD, 5, 5).id)
            inner: Any = group([caller.signature(ADD, 6, 6)]).apply_async()
            others.append(inner[0].id)
            found.extend(each["headers"]["id"] for each in messages(caller))
            if len(others) > 2:
                raise ValueError("refused")
            return super().apply_async(*args, **options)

    def total(numbers: list[int]) -> int:
        return sum(numbers)

    task: Any = caller.app.task
    caller.app.tasks.pop("add.tasks.tsum", None)  # other tests may have imported it
    audited: Any = task(base=Audited, name="add.tasks.tsum", shared=False)(total)
    with pytest.raises(ValueError, match="refused"):
        group(audited.s([1]), audited.s([2])).apply_async()

    assert found == others
    assert messages(caller) == []


def test_a_task_of_the_program_itself_is_known_from_its_first_job(caller: Client) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    caller.app.tasks.pop(ADD, None)  # other tests may have imported it
    caller.app.task(name=ADD, shared=False, ignore_result=False)(add)
    amqp: Any = caller.app.amqp
    amqp.router = amqp.Router()  # which takes new templates
    assert not caller.app.submission.try_send(ADD, (1, 2), None, {"task_id": "unknown"})
    assert not caller.app.submission.knows(ADD)
    caller.submit(ADD, 1, 2)

    assert caller.app.submission.knows(ADD)


def test_a_new_router_makes_new_templates(caller: Client) -> None:
    app: Any = caller.app
    caller.submit(ADD, 1, 2)
    assert app.submission.knows(ADD)
    app.amqp.router = app.amqp.Router()
    caller.submit(ADD, 3, 4)

    assert app.submission.try_send(ADD, (5, 6), None, {"task_id": "known"})
    app.amqp.router = app.amqp.Router()
    assert not app.submission.try_send(ADD, (7, 8), None, {"task_id": "unknown"})


def test_a_group_outlives_a_lost_connection(caller: Client) -> None:
    caller.submit(ADD, 0, 0)
    jobs = group(caller.signature(ADD, i, i) for i in range(3))
    redis(caller).client_kill_filter(_type="normal", skipme=True)
    sent: Any = jobs.apply_async()

    assert [each["headers"]["id"] for each in messages(caller)[1:]] == [job.id for job in sent]
