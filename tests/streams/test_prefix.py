"""The prefix of all keys, `global_keyprefix`, is put exactly once before each of them."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Producer, Queue

from celery_streams.producer.jobs import Job, new_id
from celery_streams.producer.sender import Sender
from celery_streams.producer.template import Template
from celery_streams.transport import keys
from tests.streams.conftest import Connect
from tests.support.collector import QUEUE, Worker, publish, queue
from tests.support.waiting import eventually

PREFIX = "pp:"
STREAM = f"{PREFIX}{keys.stream(QUEUE, 0)}"


@pytest.fixture(autouse=True)
def one_prefix(store: Any) -> Any:
    """Check in the end that every key has the prefix exactly once."""
    yield
    found = store.keys("*")
    assert found
    assert [key for key in found if not key.startswith(PREFIX)] == []
    assert [key for key in found if PREFIX in key.removeprefix(PREFIX)] == []


def publish_one_by_one(connection: Any, *bodies: Any, **options: Any) -> None:
    publish(connection, *bodies, **options)


def publish_in_a_batch(connection: Any, *bodies: Any, **options: Any) -> None:
    producer: Any = Producer(connection)
    with producer, producer.batch():
        for body in bodies:
            producer.publish(body, routing_key=QUEUE, **options)


@pytest.mark.parametrize("way", [publish_one_by_one, publish_in_a_batch])
@pytest.mark.parametrize("options", [{}, {"priority": 6}, {"headers": {"eta": "soon"}}])
def test_what_is_published_is_fetched(
    connect: Connect, store: Any, way: Any, options: dict[str, Any]
) -> None:
    if options.get("headers"):
        eta = datetime.now(UTC) + timedelta(seconds=4)
        options = {"headers": {"eta": eta.isoformat(), "task": "t", "id": "i"}}
    connection = connect(global_keyprefix=PREFIX)
    worker = Worker(connection)
    way(connection, 1, 2, **options)
    assert worker.channel._size(QUEUE) == 2

    assert worker.wait_for(2) == [1, 2]
    for message in worker.messages:
        message.ack()
    worker.channel.deliveries.flush()
    assert worker.channel._size(QUEUE) == 0


def test_a_transient_message_in_a_batch_is_delivered(connect: Connect) -> None:
    connection = connect(global_keyprefix=PREFIX)
    worker = Worker(connection)
    publish_in_a_batch(connection, 1, delivery_mode=1)

    assert worker.wait_for(1) == [1]


def test_a_list_in_a_batch_is_delivered(connect: Connect) -> None:
    connection = connect(global_keyprefix=PREFIX)
    name = "replies"
    worker = Worker(connection)
    transient = Queue(name, Exchange(""), routing_key=name, durable=False)
    worker.consumer.add_queue(transient)
    worker.consumer.consume()
    producer: Any = Producer(connection)
    with producer, producer.batch():
        producer.publish(1, routing_key=name)
        producer.publish(2, routing_key=QUEUE)

    assert sorted(worker.wait_for(2)) == [1, 2]


def test_released_rejected_and_purged_messages(connect: Connect, store: Any) -> None:
    connection = connect(global_keyprefix=PREFIX)
    worker = Worker(connection)
    publish_in_a_batch(connection, 1, 2, 3)
    worker.wait_for(3)
    first, second, third = worker.messages
    first.ack()
    second.requeue()
    third.reject()
    worker.wait_for(4)
    eventually("the letter is there", lambda: store.xlen(f"{PREFIX}{keys.dead(QUEUE)}") == 1)
    worker.consumer.cancel()
    publish(connection, 4, 5)

    channel: Any = connection.default_channel
    assert channel.queue_purge(QUEUE) >= 2
    queue()(channel).delete()
    assert not store.exists(STREAM)


def test_messages_of_a_template(connect: Connect, store: Any) -> None:
    connection = connect(global_keyprefix=PREFIX)
    app = Celery(set_as_current=False)
    app.conf.task_default_queue = QUEUE
    worker = Worker(connection)
    channel: Any = connection.default_channel
    template = Template.of(app, channel, "a.task", queue())
    assert template
    values = (b'"%b"' % new_id().encode(), *(b"null" for _ in Job._fields[1:]))
    job = Job(*values)._replace(args=b"[4, 6]", kwargs=b"{}")
    sender = Sender(channel.connection_parameters)
    sender.publish(template.key, template.max_length, [template.message(job)])
    sender.close()

    assert worker.wait_for(1)[0][0] == [4, 6]


def test_the_commands_find_the_dead_letters(url: str, connect: Connect, store: Any) -> None:
    connection = connect(global_keyprefix=PREFIX)
    worker = Worker(connection)
    publish(connection, [[], {}, {}], headers={"task": "t", "id": "an-id"})
    worker.wait_for(1)
    worker.messages[0].reject()
    program = (
        f"from celery import Celery; app = Celery(broker={url!r}, set_as_current=False);"
        "app.conf.update(broker_transport='celery_streams:Transport',"
        f"broker_transport_options={{'global_keyprefix': {PREFIX!r}}})"
    )

    def dead(*arguments: str) -> str:
        run = "from celery_streams.__main__ import main, run; import sys, types;"
        module = "m = types.ModuleType('m'); exec(sys.argv[1], m.__dict__); sys.modules['m'] = m;"
        argv = "sys.argv[1:] = sys.argv[2:]; run(main)"
        done = subprocess.run(
            [sys.executable, "-c", run + module + argv, program, "dead", *arguments, "-A", "m"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    letter = dead("list", QUEUE).splitlines()[1].split()[0]
    assert letter in dead("list")
    assert "an-id" in dead("show", letter)
    assert "replayed" in dead("replay", letter)
    assert worker.wait_for(2)
