"""Programs that consume through kombu, without Celery, as on kombu's own transport."""

import json
import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from queue import Empty
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.asynchronous import Hub
from kombu.common import eventloop, itermessages
from kombu.mixins import ConsumerMixin

import celery_streams
from celery_streams.errors import MessageTooLarge
from celery_streams.producer.template import Template
from celery_streams.transport import keys, queues
from tests.streams.conftest import Connect
from tests.support.collector import QUEUE, STOCK, held, left, publish, queue
from tests.support.waiting import eventually

Program = Callable[[Connection], list[Any]]


class Mixin(ConsumerMixin):
    """A program as in kombu's guide."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Any = connection
        self.bodies: list[Any] = []

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803 - kombu's
        """Return its consumer."""
        return [Consumer([queue()], on_message=self.on_message)]

    def on_message(self, message: Any) -> None:
        """Note a message, and acknowledge it."""
        self.bodies.append(message.payload)
        message.ack()


def by_itermessages(connection: Connection) -> list[Any]:
    found = itermessages(connection, connection.channel(), queue(), limit=3, timeout=20)
    return [take(message) for _, message in found]


def by_mixin(connection: Connection) -> list[Any]:
    mixin: Any = Mixin(connection)
    assert len([*mixin.consume(limit=3, timeout=20)]) == 3
    return list(mixin.bodies)


def by_eventloop(connection: Connection) -> list[Any]:
    bodies: list[Any] = []
    with Consumer(connection, [queue()], on_message=lambda each: bodies.append(take(each))):
        assert len([*eventloop(connection, limit=3, timeout=20)]) == 3
    return bodies


def by_draining(connection: Connection) -> list[Any]:
    bodies: list[Any] = []
    with Consumer(connection, [queue()], on_message=lambda each: bodies.append(take(each))):
        for count in (1, 2, 3):
            connection.drain_events(timeout=20)
            assert len(bodies) == count
    return bodies


def by_draining_without_acknowledgement(connection: Connection) -> list[Any]:
    bodies: list[Any] = []
    consumer = Consumer(
        connection, [queue()], no_ack=True, on_message=lambda each: bodies.append(each.payload)
    )
    with consumer:
        for _ in range(3):
            connection.drain_events(timeout=20)
    return bodies


def by_simple_queue(connection: Connection) -> list[Any]:
    simple = connection.SimpleQueue(QUEUE)
    return [take(simple.get(**how)) for how in ({"timeout": 20}, {"block": False}, {"block": True})]


def by_asking(connection: Connection) -> list[Any]:
    channel: Any = connection.channel()
    return [take(channel.basic_get(QUEUE)) for _ in range(3)]


def take(message: Any) -> Any:
    """Acknowledge a message, and return its body."""
    message.ack()
    return message.payload


@pytest.mark.parametrize("is_stock", [False, True])
@pytest.mark.parametrize(
    "program",
    [
        by_itermessages,
        by_mixin,
        by_eventloop,
        by_draining,
        by_draining_without_acknowledgement,
        by_simple_queue,
        by_asking,
    ],
)
def test_a_program_gets_as_many_as_it_asks_for(
    connect: Connect, url: str, store: Any, program: Program, *, is_stock: bool
) -> None:
    def connection() -> Connection:
        return Connection(url, transport=STOCK) if is_stock else connect()

    with connection() as producer, connection() as consumer:
        publish(producer, *range(10))
        assert program(consumer) == [0, 1, 2]
        if not is_stock:
            assert left(store) == 7
            assert held(store) == 0
    with connection() as another:
        found: list[Any] = []
        with Consumer(another, [queue()], on_message=found.append):
            for _ in range(7):
                another.drain_events(timeout=20)
        assert [message.payload for message in found] == [*range(3, 10)]
        # None of them counts as delivered.
        assert not any("redelivered" in message.headers for message in found)


def test_nothing_comes_in_time_or_an_error(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(Empty):
        connection.SimpleQueue(QUEUE).get(block=False)
    with pytest.raises(Empty):
        connection.SimpleQueue(QUEUE).get(timeout=0.2)
    for seconds in (0, 0.01, 0.3):
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=seconds)


def test_no_fetch_goes_on_when_a_call_has_ended(connect: Connect, store: Any) -> None:
    connection = connect()
    found: list[Any] = []
    consumer = Consumer(connection, [queue()], on_message=found.append)
    consumer.consume()
    for _ in range(3):
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.1)
        # A program that is idle between two calls holds no message.
        publish(connect(), 1)
        assert held(store) == 0
        connection.drain_events(timeout=20)
        found.pop().ack()
    consumer.cancel()
    publish(connect(), 2)

    assert left(store) == 1
    assert held(store) == 0


def test_channels_of_a_connection_take_turns(connect: Connect, store: Any) -> None:
    connection = connect()
    found: list[Any] = []
    for name in ("one", "two", "three"):
        consumer = Consumer(
            connection.channel(),
            [queue(name), queue(f"{name} more")],
            on_message=lambda message: found.append(take(message)),
        )
        consumer.consume()
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.5)  # all are connected
    for name in ("one", "two", "three"):
        publish(connect(), *[name] * 4, name=name)
    for count in range(1, 13):
        connection.drain_events(timeout=20)
        assert len(found) == count

    assert all(found.count(name) == 4 for name in ("one", "two", "three"))
    for start in (0, 3, 6, 9):
        assert len({*found[start : start + 3]}) >= 2, found
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.1)


def test_prefetched_messages_are_released_without_a_delivery(connect: Connect, store: Any) -> None:
    connection = connect()
    names = ("one", "two", "three")
    found: list[Any] = []
    consumers = [
        Consumer(connection.channel(), [queue(name)], on_message=found.append) for name in names
    ]
    for consumer in consumers:
        consumer.consume()
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.05)
    for name in names:
        publish(connect(), name, name=name)
    connection.drain_events(timeout=20)

    def pending() -> int:
        return sum(
            store.xpending(key, keys.GROUP)["pending"]
            for name in names
            for key in store.scan_iter(f"{name}:*", _type="stream")
            if store.xinfo_groups(key)
        )

    # One is delivered; those that were fetched with it are under their leases.
    assert pending() >= 1
    for consumer in consumers:
        consumer.cancel()
    assert pending() == 1
    connection.close()
    assert pending() == 0
    with connect() as another:
        channel: Any = another.channel()
        for name in names:
            message = channel.basic_get(name)
            assert message.headers.get("x-delivery-count", 0) == 0
            assert message.payload == name
    assert len(found) == 1


def test_a_consumer_that_raises_has_taken_one(connect: Connect, store: Any) -> None:
    def fail(message: Any) -> None:
        raise ValueError(message.payload)

    publish(connect(), 1, 2, 3)
    connection = connect()
    with Consumer(connection, [queue()], no_ack=True, on_message=fail):
        for body in (1, 2):
            with pytest.raises(ValueError, match=str(body)):
                connection.drain_events(timeout=20)
            # Acknowledged when it was delivered.
            assert left(store) == 3 - body


def test_a_consumer_that_acks_can_follow_one_that_does_not(connect: Connect, store: Any) -> None:
    publish(connect(), 1, 2)
    connection = connect()
    found: list[Any] = []
    with connection.channel() as channel:
        for no_ack in (True, False):
            consumer = Consumer(channel, [queue()], no_ack=no_ack, on_message=found.append)
            with consumer:
                connection.drain_events(timeout=20)
        assert [each.payload for each in found] == [1, 2]
        assert left(store) == 1

    assert connect().SimpleQueue(QUEUE).get(timeout=20).payload == 2


def test_an_event_loop_of_kombu_is_served(connect: Connect, store: Any) -> None:
    connection = connect()
    found: list[Any] = []
    hub = Hub()
    try:
        with Consumer(connection, [queue()], on_message=lambda each: found.append(take(each))):
            connection.register_with_event_loop(hub)
            publish(connect(), *range(50))

            def all_came() -> bool:
                hub.run_once()
                return len(found) == 50

            eventually("all come", all_came)
    finally:
        hub.close()
    assert found == [*range(50)]


#: Lifetime of a queue that expires, in seconds.
LIFETIME = 60


def expiring() -> Queue:
    return Queue(QUEUE, Exchange(""), QUEUE, expires=LIFETIME)


def lifetimes(store: Any, name: str = QUEUE) -> list[float]:
    """Return the seconds that each of a queue's keys has left; below zero for a key that stays."""
    notes = keys.notes(name)  # which pass by themselves
    found = [each for each in store.scan_iter(f"{name}*") if each not in notes]
    assert found
    return [store.pttl(key) / 1000 for key in found]


def shorten(store: Any) -> None:
    """Leave each of the queue's keys half of its lifetime."""
    for key in store.scan_iter(f"{QUEUE}*"):
        assert store.expire(key, LIFETIME // 2)


def is_renewed(store: Any) -> bool:
    """Return True if all of the queue's keys have more than half of their lifetime left."""
    return all(LIFETIME / 2 < each <= LIFETIME for each in lifetimes(store))


@pytest.mark.parametrize("prefix", ["", "pp:"])
@pytest.mark.parametrize("is_batch", [False, True])
def test_all_keys_of_a_queue_that_expires_expire(
    connect: Connect, store: Any, prefix: str, *, is_batch: bool
) -> None:
    connection = connect(global_keyprefix=prefix)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    producer: Any = Producer(connection)
    with producer.batch() if is_batch else nullcontext():
        for priority in (0, 9):
            producer.publish(1, routing_key=QUEUE, declare=[expiring()], priority=priority)
        producer.publish(1, routing_key=QUEUE, headers={"eta": later})

    assert all(0 < each <= LIFETIME for each in lifetimes(store, prefix + QUEUE))


def test_a_queue_does_not_expire_while_it_is_used(connect: Connect, store: Any) -> None:
    publish(connect(), 1, declare=[expiring()])
    connection = connect()
    found: list[Any] = []
    with Consumer(connection, [expiring()], on_message=lambda each: found.append(take(each))):

        def drain() -> bool:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
            return is_renewed(store)

        for _ in range(2):
            shorten(store)
            eventually("a consumer that waits renews it", drain)
        assert found == [1]
        publish(connect(), 2)
        connection.drain_events(timeout=20)
    assert found == [1, 2]
    channel: Any = connection.channel()
    expiring()(channel).declare()

    def ask() -> bool:
        assert channel.basic_get(QUEUE) is None
        return is_renewed(store)

    for _ in range(2):
        shorten(store)
        eventually("a program that asks for messages renews it", ask)


@pytest.mark.parametrize("milliseconds", [-1, 0, 10**30])
def test_no_lifetime_loses_what_was_just_published(
    connect: Connect, store: Any, monkeypatch: pytest.MonkeyPatch, milliseconds: int
) -> None:
    monkeypatch.setattr(queues, "MIN_LIFETIME", 60_000)
    strange = Queue(QUEUE, Exchange(""), QUEUE, queue_arguments={"x-expires": milliseconds})
    publish(connect(), 1, declare=[strange])

    assert left(store) == 1
    assert store.pttl(keys.stream(QUEUE, 0)) > 1000


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        ({"message_ttl": 60}, {}),
        ({}, {"expiration": 60}),
        ({"message_ttl": 600}, {"expiration": 60}),
        ({"message_ttl": 60}, {"expiration": 600}),
    ],
)
def test_a_message_that_is_too_old_is_not_delivered(
    connect: Connect, store: Any, declared: dict[str, Any], sent: dict[str, Any]
) -> None:
    limited = Queue(QUEUE, Exchange(""), QUEUE, **declared)
    connection = connect()
    channel: Any = connection.channel()
    limited(channel).declare()
    publish(connection, "old", name="other", **sent)
    publish(connection, "a job", name="other", **sent, headers={"id": "an id", "task": "a task"})
    for entry, fields in store.xrange(keys.stream("other", 0)):
        published_at, _, number = entry.partition("-")
        store.xadd(keys.stream(QUEUE, 0), fields, id=f"{int(published_at) - 90_000}-{number}")
    publish(connection, "new", **sent)
    dead: list[Any] = []
    channel.deliveries.on_dead_letter = dead.append

    assert eventually("the new one", lambda: channel.basic_get(QUEUE, no_ack=True)).payload == "new"
    assert channel.basic_get(QUEUE) is None
    assert left(store) == store.xlen(keys.dead(QUEUE)) == 1
    assert [each.job_id for each in dead] == ["an id"]


@pytest.mark.parametrize("value", ["", "soon", "-1", "9" * 400, 2.5, -1, 10**18])
def test_an_invalid_expiration_is_ignored(connect: Connect, store: Any, value: str | float) -> None:
    message = {
        "body": "1",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {
            "expiration": value,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "delivery_tag": "a tag",
        },
    }
    store.xadd(keys.stream(QUEUE, 0), {"message": json.dumps(message)})
    channel: Any = connect().channel()

    found = channel.basic_get(QUEUE, no_ack=True)
    assert found is None or found.payload == 1
    assert (found is None) == bool(store.xlen(keys.dead(QUEUE)))  # malformed, or delivered


def test_a_program_that_asks_for_messages_gets_those_of_a_dead_one(
    connect: Connect, store: Any
) -> None:
    publish(connect(), 1)
    dead: Any = connect(lease=1).default_channel
    assert dead.basic_get(QUEUE).payload == 1
    dead.deliveries._is_closed = True  # its lease is not renewed, and it gives nothing back
    asking: Any = connect(lease=1).default_channel

    message: Any = eventually("the lease expires", lambda: asking.basic_get(QUEUE))
    assert message.payload == 1


def test_a_job_that_is_too_large_is_refused_by_template_and_by_celery(url: str, store: Any) -> None:
    app: Any = celery_streams.Celery("mine", broker=url, set_as_current=False)
    app.conf.broker_transport_options = {"max_message_bytes": 5000}
    jobs = [app.send_task("mine.task", ("x",), queue=None) for _ in range(2)]
    assert [type(each) for each in app.submission._templates.values()] == [Template]

    for _ in range(2):
        with pytest.raises(MessageTooLarge, match="more than 5000"):
            app.send_task("mine.task", ("x" * 5000,))
    assert store.xlen("celery:stream:0") == len(jobs)
    app.close()
