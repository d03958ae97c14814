"""A kombu transport on Redis Streams: what was accepted is delivered until it is acknowledged.

A message is an entry of its queue's stream. A consumer is given it by XREADGROUP, which writes
down at once who has it; it leaves the stream when it is acknowledged. A consumer that died is
known by its lease, which nobody renews any more: others take over what it held.
https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups

What kombu's own transport does for fanout exchanges, bindings and queues that are not durable
(replies to remote control, which stock Celery programs wait for) stays as it is.

    keys, scripts, queues   what there is in Redis, and what can be done with it
    channel, qos, lease     kombu's side: fetch, deliver, acknowledge, give back
    envelope, times, jobs   what a message says, and what a Celery worker does with it
"""

import threading
from typing import Any

from kombu.transport import redis

from streams.channel import ROUND, Channel
from streams.errors import ServerTooOld

#: The oldest servers that can do all that is asked of them.
OLDEST = {"redis": (7, 0), "valkey": (8, 0)}


class Poller(redis.MultiChannelPoller):
    """Kombu's, which sends the fetches of all channels; and sees to what else is due."""

    _channels: set[Channel]

    def on_poll_start(self) -> None:
        """Send what is to be sent before the loop waits for replies."""
        super().on_poll_start()
        for channel in tuple(self._channels):
            if channel.active_queues:
                channel.acknowledge()
                channel.tend()

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait for a reply, but no longer than until the next round: no fetch may be under way."""
        return super().get(callback, ROUND if timeout is None else min(timeout, ROUND))


class Transport(redis.Transport):
    """The transport, for `broker_transport` or as what the scheme `redis` stands for."""

    Channel = Channel

    # A message that lacks a key is not a lost connection, as kombu has it.
    connection_errors = tuple(
        error for error in redis.Transport.connection_errors if error is not KeyError
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cycle = Poller()
        #: Queues that were declared here as not durable.
        self.transient_queues: set[str] = set()
        #: The thread whose event loop fetches, if there is one.
        self.loop_thread: int | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Fetch from a worker's event loop."""
        super().register_with_event_loop(connection, loop)
        self.loop_thread = threading.get_ident()

    def check_server(self, client: Any) -> float:
        """Return for how many seconds the server has been up.

        Raises ServerTooOld for one that cannot do what a consumer needs.
        """
        about = client.info("server")
        name = "valkey" if "valkey_version" in about else "redis"
        version = str(about[f"{name}_version"])
        if tuple(map(int, version.split(".")[:2])) < OLDEST[name]:
            oldest = (f"{each.title()} {major} or newer" for each, (major, _) in OLDEST.items())
            raise ServerTooOld(
                f"the server is {name.title()} {version}, and must be {', or '.join(oldest)}"
            )
        return float(about["uptime_in_seconds"])
