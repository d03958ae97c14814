"""What kombu promises of a channel, and what this transport promises beyond it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from redis import Redis
from redis.exceptions import NoPermissionError

from celery_streams import worker_state
from celery_streams.errors import Malformed, MessageTooLarge, QueueFull, ServerTooOld
from celery_streams.transport import deliveries, keys
from celery_streams.transport.deliveries import DeadMessage
from celery_streams.transport.dispatch import MAX_EARLY
from tests.streams.conftest import LEASE, Connect
from tests.support.collector import QUEUE, STOCK, Worker, held, left, publish
from tests.support.waiting import eventually


def test_messages_come_in_order_and_go_when_they_are_acknowledged(
    connect: Connect, store: Any
) -> None:
    worker = Worker(connect())
    publish(connect(), *range(50))

    assert worker.wait_for(50) == [*range(50)]
    assert held(store) == left(store) == 50
    for message in worker.messages:
        message.ack()
    assert held(store) == left(store) == 0


def test_no_more_are_fetched_than_a_consumer_may_hold(connect: Connect, store: Any) -> None:
    publish(connect(), *range(10))
    worker = Worker(connect(), prefetch=3)

    assert worker.drain() == [0, 1, 2]
    assert held(store) == 3
    worker.messages[0].ack()
    assert worker.drain() == [0, 1, 2, 3]


def test_the_urgent_come_first(connect: Connect) -> None:
    connection = connect()
    for priority in (9, 0, 6, 3, 1):
        publish(connection, priority, priority=priority)

    assert Worker(connect()).drain() == [0, 1, 3, 6, 9]


def test_a_consumer_that_acknowledges_nothing_leaves_nothing(connect: Connect, store: Any) -> None:
    publish(connect(), 1, 2)
    worker = Worker(connect(), no_ack=True)

    assert worker.drain() == [1, 2]
    assert left(store) == 0


def test_what_is_handed_back_comes_first_and_is_marked(connect: Connect) -> None:
    publish(connect(), 1, 2, 3)
    first = Worker(connect(), prefetch=1)
    first.wait_for(1)
    first.messages[0].reject(requeue=True)
    second = Worker(connect())

    assert second.drain() == [1, 2, 3]
    assert second.messages[0].headers["redelivered"] is True
    assert second.messages[0].headers["x-delivery-count"] == 1
    assert "redelivered" not in second.messages[1].headers


def test_what_is_released_comes_first_of_its_priority(connect: Connect, store: Any) -> None:
    connection = connect()
    for priority in (9, 6, 3):
        publish(connection, f"released {priority}", priority=priority)
    first = Worker(connect(), prefetch=3)
    first.wait_for(3)
    for message in first.messages:
        message.reject(requeue=True)
    for priority in (0, 3, 6, 9):
        publish(connection, f"new {priority}", priority=priority)

    names = ["new 0"]
    names += [f"{kind} {priority}" for priority in (3, 6, 9) for kind in ("released", "new")]
    second = Worker(connect())
    assert second.wait_for(7) == names
    counts = [message.headers.get("x-delivery-count") for message in second.messages]
    assert counts == [None, 1, None, 1, None, 1, None]
    # However often.
    second.channel.close()
    assert Worker(connect()).wait_for(7) == names


def test_what_is_given_back_keeps_its_age(connect: Connect, store: Any, holder: "Hold") -> None:
    """However it is given back: a queue's message_ttl counts from when it was published."""
    publish(connect(), *range(4))
    published = [int(entry.partition("-")[0]) for entry, _ in store.xrange(keys.stream(QUEUE, 0))]

    def ages() -> list[int]:
        return sorted(int(each["published"]) for _, each in store.xrange(keys.returned(QUEUE, 0)))

    first = Worker(connect())
    first.wait_for(4)
    first.messages[0].reject(requeue=True)
    assert ages() == published[:1]
    first.channel.close()
    assert ages() == published
    holder(4).kill()
    worker = Worker(connect())
    worker.wait_for(4)
    assert ages() == published


def test_what_a_dead_consumer_held_keeps_its_priority(
    connect: Connect, store: Any, holder: "Hold"
) -> None:
    connection = connect()
    publish(connection, "low", priority=9)
    holder(1).kill()
    publish(connection, "high", priority=0)
    publish(connection, "new low", priority=9)
    worker = Worker(connect(), prefetch=1)
    eventually("it is reclaimed", lambda: worker.drain(0.1) and store.xlen(f"{QUEUE}:returned:9"))
    for count in (1, 2):
        worker.wait_for(count)[-1]
        worker.messages[-1].ack()

    assert worker.wait_for(3) == ["high", "low", "new low"]


def test_what_an_earlier_version_released_gets_a_priority(
    connect: Connect, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = keys.former_returned(QUEUE)
    for priority in (6, 0, 3):
        publish(connect(), priority, priority=priority)
        ((entry, fields),) = store.xrange(keys.stream(QUEUE, priority))
        store.xadd(former, {**fields, "deliveries": 1})
        store.xdel(keys.stream(QUEUE, priority), entry)
    store.xadd(former, {"message": "no message", "deliveries": 0})
    # A worker of that version holds two, and never ends; its lease does.
    store.xgroup_create(former, keys.GROUP, id="0")
    store.xreadgroup(keys.GROUP, "another", {former: ">"}, count=2)
    monkeypatch.setattr("celery_streams.transport.maintenance.MAX_IDLE", 1.0)
    channel: Any = connect().channel()
    assert channel.queue_declare(QUEUE, passive=True).message_count == 2
    worker = Worker(connect())

    assert worker.wait_for(3) == [3, 0, 6]
    counts = [message.headers["x-delivery-count"] for message in worker.messages]
    assert counts == [1, 2, 2]
    assert store.xlen(keys.dead(QUEUE)) == 1
    eventually("it is gone", lambda: not (worker.drain(0.1) and store.exists(former)))


def test_a_channel_that_closes_hands_back_at_once_without_counting(connect: Connect) -> None:
    publish(connect(), 1, 2)
    for _ in range(5):
        worker = Worker(connect())
        assert worker.wait_for(2) == [1, 2]
        worker.channel.close()


def test_what_a_pool_begins_while_its_worker_stops_is_not_handed_back(
    connect: Connect, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(connect(), 1, 2)
    worker = Worker(connect())
    worker.wait_for(2)
    begun = worker.messages[0].delivery_tag

    monkeypatch.setattr(worker_state, "running", set)
    monkeypatch.setattr(
        deliveries, "sleep", lambda _: monkeypatch.setattr(worker_state, "running", lambda: {begun})
    )
    worker.channel.deliveries.release_waiting()

    assert Worker(connect()).wait_for(1) == [2]
    assert held(store) == 2


def test_a_message_that_is_handed_back_too_often_is_a_dead_letter(
    connect: Connect, store: Any
) -> None:
    publish(connect(), "poison", headers={"id": "an id", "task": "a task"})
    worker = Worker(connect())
    dead: list[DeadMessage] = []
    worker.channel.deliveries.on_dead_letter = dead.append
    for count in (1, 2, 3):
        worker.wait_for(count)
        worker.messages[-1].reject(requeue=True)

    assert worker.drain() == ["poison"] * 3
    assert [(each.queue, each.job_id) for each in dead] == [(QUEUE, "an id")]
    ((_, letter),) = store.xrange(keys.dead(QUEUE))
    assert letter["deliveries"] == "3"
    assert "delivered 3 times" in letter["reason"] == dead[0].reason
    assert left(store) == 1


def test_a_rejected_message_is_a_dead_letter(connect: Connect, store: Any) -> None:
    publish(connect(), 1, 2)
    worker = Worker(connect())
    worker.wait_for(2)
    worker.messages[0].reject()
    worker.channel.deliveries.dead_letter(worker.messages[1].delivery_tag, "a reason")

    reasons = [letter["reason"] for _, letter in store.xrange(keys.dead(QUEUE))]
    assert reasons == ["rejected by the worker", "a reason"]
    assert held(store) == 0


HOLDER = """
import sys
from kombu import Connection
from tests.support.collector import Worker
connection = Connection(
    sys.argv[1],
    transport="celery_streams:Transport",
    transport_options={"lease": float(sys.argv[2])},
)
worker = Worker(connection)
worker.wait_for(int(sys.argv[3]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(url: str) -> Any:
    """Start processes that hold so many messages until they are killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(count: int) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url, str(LEASE), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


Hold = Callable[[int], "subprocess.Popen[str]"]


def test_what_a_killed_consumer_held_is_taken_over(
    connect: Connect, store: Any, holder: Hold
) -> None:
    publish(connect(), *range(5))
    process = holder(5)
    worker = Worker(connect())
    assert worker.drain(2.5 * LEASE) == []

    process.kill()

    assert worker.wait_for(5) == [*range(5)]
    assert {message.headers["x-delivery-count"] for message in worker.messages} == {1}


def test_a_message_that_kills_its_consumer_each_time_is_a_dead_letter(
    connect: Connect, store: Any, holder: Hold
) -> None:
    publish(connect(), "poison", headers={"id": "an id", "task": "a task"})
    for _ in range(3):
        holder(1).kill()
    worker = Worker(connect())
    dead: list[DeadMessage] = []
    worker.channel.deliveries.on_dead_letter = dead.append

    def is_dead() -> bool:
        assert worker.drain(0.2) == []
        return bool(dead)

    eventually("a dead letter", is_dead)
    assert dead[0].job_id == "an id"
    assert store.xlen(keys.dead(QUEUE)) == 1


def test_one_that_was_stopped_longer_than_a_lease_acknowledges_in_vain(
    connect: Connect, store: Any, holder: Hold
) -> None:
    publish(connect(), 1)
    process = holder(1)
    os.kill(process.pid, signal.SIGSTOP)
    worker = Worker(connect())
    assert worker.wait_for(1) == [1]
    os.kill(process.pid, signal.SIGCONT)

    # Its lease is not renewed in the other's place, and its end takes nothing away.
    assert worker.drain(2 * LEASE) == [1]
    process.communicate()
    assert held(store) == 1
    worker.messages[0].ack()
    assert left(store) == 0


def test_a_consumer_that_died_is_forgotten(
    connect: Connect, store: Any, holder: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_streams.transport.maintenance.MAX_IDLE", 1.0)
    publish(connect(), 1)
    holder(1).kill()
    worker = Worker(connect())
    worker.wait_for(1)

    def consumers() -> set[str]:
        store.delete(*keys.notes(QUEUE))  # it is done once a minute
        worker.drain(0.1)
        return {
            consumer["name"]
            for step in (0, 3, 6, 9)
            for consumer in store.xinfo_consumers(keys.stream(QUEUE, step), keys.GROUP)
        }

    eventually("only one is left", lambda: consumers() <= {worker.channel.deliveries.consumer})


def test_a_message_waits_for_its_time_and_no_consumer_holds_it(
    connect: Connect, store: Any
) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=3.5)
    publish(connect(), 1, headers={"eta": moment.isoformat()})
    assert store.zcard(keys.delayed(QUEUE)) == 1
    worker = Worker(connect())
    assert worker.drain(0.2) == []

    assert worker.wait_for(1) == [1]
    assert moment - datetime.now(UTC) <= timedelta(seconds=MAX_EARLY)


def test_a_message_that_is_due_soon_waits_in_redis_too(connect: Connect, store: Any) -> None:
    worker = Worker(connect())
    worker.drain(0.1)
    moment = datetime.now(UTC) + timedelta(seconds=1.5)
    publish(connect(), "soon", headers={"eta": moment.isoformat()})
    publish(connect(), "at once")
    assert worker.wait_for(1) == ["at once"]
    assert store.zcard(keys.delayed(QUEUE)) == 1

    assert worker.wait_for(2) == ["at once", "soon"]
    assert moment - datetime.now(UTC) <= timedelta(seconds=MAX_EARLY)


def test_thousands_that_are_due_at_once_are_promoted_at_once(connect: Connect, store: Any) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=5)
    message = serialized(connect(), store, "later", headers={"eta": moment.isoformat()})
    store.zadd(
        keys.delayed(QUEUE),
        {f"0:{message}{' ' * spaces}": moment.timestamp() for spaces in range(5000)},
    )
    worker = Worker(connect(), prefetch=1)
    worker.wait_for(1)
    rounds = 0
    while store.zcard(keys.delayed(QUEUE)):
        rounds += 1
        worker.drain(0)

    # Each is a command for a thousand: none waits for a second.
    assert rounds <= 10
    assert left(store) == 5000


def test_thousands_of_a_stock_program_are_moved_at_once(connect: Connect, store: Any) -> None:
    message = serialized(connect(), store, "stock")
    store.lpush(QUEUE, *[message] * 5000)
    worker = Worker(connect(), prefetch=1)
    worker.wait_for(1)
    rounds = 0
    while store.llen(QUEUE):
        rounds += 1
        worker.drain(0)

    assert rounds <= 10
    assert left(store) == 5000


def serialized(connection: Connection, store: Any, body: Any, **options: Any) -> str:
    """Return a message as it is stored, which no queue holds."""
    publish(connection, body, name="another", **options)
    for _, fields in store.xrange(keys.stream("another", 0)):
        message = fields["message"]
    for member in store.zrange(keys.delayed("another"), 0, -1):
        _, _, message = member.partition(":")
    return str(message)


def test_what_kombu_s_own_transport_pushes_is_served(
    connect: Connect, url: str, store: Any
) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    with Connection(url, transport=STOCK) as stock:
        publish(stock, "stock", priority=3)
        publish(stock, "later", headers={"eta": moment.isoformat()})
        assert store.llen(QUEUE) == 1

        assert Worker(connect()).wait_for(1) == ["stock"]
        worker = Worker(connect())
        assert worker.drain(1.5) == []
    assert store.zcard(keys.delayed(QUEUE)) == 1


def test_a_queue_that_is_full_refuses(connect: Connect, store: Any) -> None:
    connection = connect(queue_max_length=2)
    publish(connection, 1, 2)
    with pytest.raises(QueueFull, match="the queue is full: jobs:stream:0 holds 2 messages"):
        publish(connection, 3)
    later = datetime.now(UTC) + timedelta(hours=1)
    publish(connection, 4, 5, headers={"eta": later.isoformat()})
    with pytest.raises(QueueFull, match="jobs:delayed holds 2 messages"):
        publish(connection, 6, headers={"eta": later.isoformat()})

    assert Worker(connect()).drain() == [1, 2]


def test_size_and_purge_count_what_waits(connect: Connect, store: Any) -> None:
    publish(connect(), *range(10))
    publish(connect(), *range(5), priority=6)
    later = datetime.now(UTC) + timedelta(hours=1)
    publish(connect(), 1, headers={"eta": later.isoformat()})
    worker = Worker(connect(), prefetch=3)
    worker.wait_for(3)
    channel: Any = connect().channel()

    assert channel.queue_declare(QUEUE, passive=True).message_count == 13
    assert channel.queue_purge(QUEUE) == 13
    assert channel.queue_declare(QUEUE, passive=True).message_count == 0
    assert held(store) == 3
    channel.queue_delete(QUEUE)
    assert not store.exists(keys.stream(QUEUE, 0))


def test_a_single_message_can_be_asked_for(connect: Connect, store: Any) -> None:
    connection = connect()
    channel: Any = connection.channel()
    assert channel.basic_get(QUEUE) is None
    publish(connection, 1)
    message = channel.basic_get(QUEUE)

    assert message.payload == 1
    message.ack()
    assert left(store) == 0
    publish(connection, 2)
    assert channel.basic_get(QUEUE, no_ack=True).payload == 2
    assert left(store) == 0


def test_a_transient_queue_hands_back_what_was_not_acknowledged(connect: Connect) -> None:
    transient = Queue("reply", Exchange(""), "reply", durable=False)
    publish(connect(), 1, 2, name="reply", declare=[transient])
    received: list[Any] = []
    with connect() as connection:
        consumer = Consumer(connection, [transient], on_message=received.append)
        consumer.consume()
        eventually("both", lambda: _drained(connection, received) == 2)
        received[0].ack()
    with connect() as connection:
        consumer = Consumer(connection, [transient], on_message=received.append)
        consumer.consume()
        eventually("the other again", lambda: _drained(connection, received) == 3)

    assert received[2].payload == 2


def _drained(connection: Connection, received: list[Any]) -> int:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.1)
    return len(received)


@pytest.mark.parametrize("is_stock", [False, True])
def test_a_transient_queue_stays_kombu_s_list(connect: Connect, url: str, is_stock: bool) -> None:
    reply = Queue("reply", Exchange("replies", durable=False), "key", durable=False)
    received: list[Any] = []
    with (
        connect() as connection,
        Consumer(connection, [reply], callbacks=[lambda b, m: received.append(b)]),
    ):
        with Connection(url, transport=STOCK) if is_stock else connect() as other:
            Producer(other).publish("hello", "key", exchange=reply.exchange, delivery_mode=1)
        connection.drain_events(timeout=5)

    assert received == ["hello"]


def test_every_consumer_of_a_fanout_gets_a_message(connect: Connect) -> None:
    news = Exchange("news", "fanout")
    received: list[Any] = []
    consumers = []
    for name in ("one", "other"):
        connection = connect()
        one = Queue(name, news, auto_delete=True)
        consumer = Consumer(connection, [one], callbacks=[lambda body, _: received.append(body)])
        consumer.consume()
        consumers.append((connection, consumer))
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.2)  # subscribes
    Producer(connect()).publish("hello", exchange=news, declare=[news])

    def drained() -> int:
        for connection, _ in consumers:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)
        return len(received)

    eventually("both have it", lambda: drained() >= 2)
    assert received == ["hello", "hello"]


def test_a_queue_of_a_fanout_is_an_ordinary_one_on_another_connection(connect: Connect) -> None:
    with connect() as connection:
        Queue(QUEUE, Exchange("news", "fanout"), auto_delete=True)(connection.channel()).declare()
    publish(connect(), 1)
    assert Worker(connect()).wait_for(1) == [1]


def test_a_group_that_is_gone_is_made_again(connect: Connect, store: Any) -> None:
    worker = Worker(connect())
    publish(connect(), 1)
    worker.wait_for(1)
    worker.messages[0].ack()
    store.xgroup_destroy(keys.stream(QUEUE, 0), keys.GROUP)
    publish(connect(), 2)
    assert worker.wait_for(2) == [1, 2]
    store.flushall()
    publish(connect(), 3)

    assert worker.wait_for(3) == [1, 2, 3]


def test_a_key_of_another_type_is_said_once_and_waited_out(
    connect: Connect, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store.set(keys.stream(QUEUE, 3), "no stream")
    worker = Worker(connect())
    assert worker.drain(3) == []
    complaints = [record for record in caplog.records if "WRONGTYPE" in record.getMessage()]
    assert len(complaints) == 1
    store.delete(keys.stream(QUEUE, 3))
    publish(connect(), 1)

    assert worker.wait_for(1) == [1]


@pytest.mark.parametrize(
    ("about", "refusal"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.1.9"}, "Valkey"),
        # What Valkey 7.2 says of itself, and Redis 7, and one that says nothing of use.
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.2.11"}, None),
        ({"redis_version": "7.0.15"}, None),
        ({"redis_version": "255.255.255"}, None),
        ({"redis_version": "unstable"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("may_ask", [True, False])
def test_a_server_that_is_too_old_is_refused(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    about: dict[str, Any],
    refusal: str | None,
    *,
    may_ask: bool,
) -> None:
    # No such server is at hand: what it says of itself is not real here.
    def info(*_: Any) -> dict[str, Any]:
        if not may_ask:
            raise NoPermissionError("User u has no permissions to run the 'info' command")
        return {**about, "uptime_in_seconds": 9}

    def hello(self: Any, *command: Any, **options: Any) -> Any:
        if command != ("HELLO",):
            return execute_command(self, *command, **options)
        name = about.get("server_name", "redis").encode()
        version = about.get(f"{name.decode()}_version", "unknown").encode()
        told = {b"server": name, b"version": version, b"proto": 3}
        return told if refusal else [each for pair in told.items() for each in pair]

    execute_command: Any = Redis.execute_command
    monkeypatch.setattr("redis.Redis.info", info)
    monkeypatch.setattr("redis.Redis.execute_command", hello)
    if refusal is None:
        Worker(connect())
        return
    text = rf"is {refusal}.*, and must be Redis 7 or newer, or Valkey 7\.2 or newer"
    with pytest.raises(ServerTooOld, match=text):
        Worker(connect())


def test_a_lost_connection_is_an_error_and_loses_nothing(connect: Connect, store: Any) -> None:
    worker = Worker(connect())
    publish(connect(), 1)
    worker.wait_for(1)
    store.client_kill_filter(_type="normal", skipme=True)
    errors = worker.connection.connection_errors
    with pytest.raises(errors):
        worker.drain(5)
    worker.connection.close()

    assert Worker(connect()).wait_for(1) == [1]


@pytest.fixture
def break_the_server(store: Any) -> Any:
    """Make the server refuse to write, in one of several ways; it is mended afterwards."""
    ways = {
        "READONLY": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        "NOPERM": (
            ("ACL", "SETUSER", "default", "-xreadgroup", "-xack"),
            ("ACL", "SETUSER", "default", "+@all"),
        ),
        "OOM": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    }

    @contextmanager
    def broken(way: str) -> Iterator[None]:
        store.execute_command(*ways[way][0])
        try:
            yield
        finally:
            store.execute_command(*ways[way][1])

    return broken


@pytest.mark.parametrize("way", ["READONLY", "NOPERM"])
def test_a_server_that_refuses_is_waited_out(
    connect: Connect, store: Any, break_the_server: Any, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    worker = Worker(connect())
    publish(connect(), 1, 2)
    worker.wait_for(2)
    with break_the_server(way):
        worker.messages[0].ack()
        worker.drain(2 * LEASE)
        worker.messages[1].reject(requeue=True)
    publish(connect(), 3)

    # What could not be given back is taken over when its lease is over; what could not be
    # acknowledged is, before.
    worker.wait_for(4)
    assert sorted(worker.bodies) == [1, 2, 2, 3]

    def nothing_is_left() -> bool:
        for message in worker.messages:
            if not message.acknowledged:
                message.ack()
        worker.drain(0.1)
        return not left(store)

    eventually("nothing is left", nothing_is_left)
    complaints = [
        each for each in caplog.records if each.name == "celery_streams.transport.refusals"
    ]
    assert 1 <= len(complaints) <= 3, caplog.text


@pytest.mark.parametrize("is_batch", [False, True])
def test_a_message_that_is_too_large_is_refused_and_nothing_is_published(
    connect: Connect, store: Any, *, is_batch: bool
) -> None:
    producer: Any = Producer(connect(max_message_bytes=2000))
    with producer:
        with (
            pytest.raises(MessageTooLarge, match=r"more than 2000 \(max_message_bytes\)"),
            producer.batch() if is_batch else nullcontext(),
        ):
            producer.publish("x" * 2000, routing_key=QUEUE)
        producer.publish("small", routing_key=QUEUE)

    assert left(store) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"priority": float("inf")},
        {"reply_to": 7},
        {"headers": {"id": "an id", "task": "a task", "timelimit": [10**400, None]}},
        {"headers": {"id": "an id", "task": "a task", "shadow": {"a": 1}}},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_no_worker_could_take_is_refused_where_it_is_published(
    connect: Connect, store: Any, options: dict[str, Any]
) -> None:
    with pytest.raises((Malformed, OverflowError)):
        publish(connect(), 1, **options)

    assert left(store) == 0
