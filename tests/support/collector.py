"""What publishes to a queue, and what collects its messages."""

from time import monotonic
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue

from celery_streams.transport import keys

QUEUE = "jobs"
#: Kombu's own transport, whatever the scheme redis stands for in this process.
STOCK = "kombu.transport.redis:Transport"


def queue(name: str = QUEUE) -> Queue:
    return Queue(name, Exchange(""), routing_key=name)


def publish(connection: Connection, *bodies: Any, name: str = QUEUE, **options: Any) -> None:
    with Producer(connection) as producer:
        for body in bodies:
            producer.publish(body, routing_key=name, **options)


class Worker:
    """Collects messages, acknowledging none."""

    def __init__(self, connection: Connection, prefetch: int = 0, **options: Any) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        channel: Any = connection.channel()
        self.channel = channel
        channel.basic_qos(prefetch_count=prefetch)
        self.consumer = Consumer(
            self.channel, [queue()], on_message=self.messages.append, **options
        )
        self.consumer.consume()

    @property
    def bodies(self) -> list[Any]:
        """The bodies of all messages that came."""
        return [message.payload for message in self.messages]

    def drain(self, seconds: float = 0.3) -> list[Any]:
        """Return the bodies of all that came, until none has for so long."""
        try:
            while True:
                self.connection.drain_events(timeout=seconds)
        except TimeoutError:
            return self.bodies

    def wait_for(self, count: int, seconds: float = 15) -> list[Any]:
        """Return the bodies of all messages once there are `count`."""
        deadline = monotonic() + seconds
        while len(self.messages) < count:
            left = deadline - monotonic()
            assert left > 0, f"{len(self.messages)} of {count} messages after {seconds} s"
            try:
                self.connection.drain_events(timeout=left)
            except TimeoutError:
                continue
        return self.bodies


def held(store: Any) -> int:
    """Return how many messages consumers hold."""
    return sum(
        store.xpending(key, keys.GROUP)["pending"]
        for key in store.scan_iter(f"{QUEUE}:*", _type="stream")
        if store.xinfo_groups(key)
    )


def left(store: Any) -> int:
    """Return how many messages a queue's streams hold, delivered or not."""
    return sum(store.xlen(key) for key in store.scan_iter(f"{QUEUE}:*", _type="stream"))
