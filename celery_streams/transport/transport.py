"""A kombu transport on Redis Streams: an accepted message is delivered until it is acked.

A message is an entry in its queue's stream. XREADGROUP delivers it to a consumer and records that
in the same step; an ack removes it. If a consumer dies, nothing renews its lease, and others
reclaim what it held.
https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups

Fanout exchanges, bindings and queues that are not durable (replies to remote control, which stock
Celery programs wait for) are kombu's own.
"""

import math
import re
import threading
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any

import kombu
from kombu.transport import redis
from kombu.utils.url import as_url, maybe_sanitize_url, parse_url
from redis.exceptions import NoPermissionError

from celery_streams import address
from celery_streams.errors import ServerTooOld, UnknownServer
from celery_streams.protocol import text
from celery_streams.transport.channel import Channel
from celery_streams.transport.lists import ListChannel
from celery_streams.transport.maintenance import INTERVAL
from celery_streams.transport.options import check_options

#: The oldest supported servers.
MIN_VERSIONS = {"redis": (7, 0), "valkey": (7, 2)}
#: Options of a URL that kombu takes as options of the transport.
_OPTIONS = ("socket_timeout", "socket_connect_timeout", "health_check_interval", "client_name")


class Connection(kombu.Connection):
    """Kombu's connection, in which `redis+socket://` does not select kombu's own transport."""

    def __init__(self, hostname: Any = "localhost", *args: Any, **options: Any) -> None:
        if isinstance(hostname, str) and options.get("transport"):
            hostname = hostname.removeprefix("redis+")
        super().__init__(hostname, *args, **options)


class Poller(redis.MultiChannelPoller):
    """Kombu's poller of all channels, which also maintains their queues."""

    _channels: set[Channel]

    def __init__(self) -> None:
        super().__init__()
        #: The event loop that polls, if there is one.
        self.loop: Any = None
        #: Seconds that the program waits for a message.
        self.seconds = INTERVAL
        self._timer: Any = None
        self._fires_at = math.inf

    def on_poll_start(self) -> None:
        """Send fetches and acks, and run maintenance, before the loop waits for replies."""
        super().on_poll_start()
        self._maintain()

    def _maintain(self) -> None:
        for channel in self._consuming():
            channel.deliveries.flush()
            channel.maintenance.run()
        if self.loop:
            self._wake_loop_at(self._next_maintenance())

    def _consuming(self) -> list[Channel]:
        return [channel for channel in self._channels if channel.active_queues]

    def _next_maintenance(self) -> float:
        return min((each.maintenance.next_due for each in self._consuming()), default=math.inf)

    def _wake_loop_at(self, moment: float) -> None:
        """Run maintenance at `moment`, even if no reply arrives before."""
        if moment >= self._fires_at:
            return
        if self._timer:
            self._timer.cancel()
        self._fires_at = moment
        self._timer = self.loop.call_later(max(moment - monotonic(), 0), self._wake)

    def _wake(self) -> None:
        self._timer, self._fires_at = None, math.inf
        self._maintain()

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait for a reply, at most until the next maintenance is due."""
        channels = sorted(self._channels, key=lambda channel: channel.dispatch.delivered_at)
        if any(channel.dispatch.deliver_kept() for channel in channels):
            return None
        longest = min(max(self._next_maintenance() - monotonic(), 0), INTERVAL)
        self.seconds = longest if timeout is None else min(timeout, longest)
        return super().get(callback, self.seconds)

    def end_fetches(self) -> None:
        """End the fetches in flight: the next call may come late."""
        for channel in tuple(self._channels):
            channel.end_fetch()


class ListTransport(redis.Transport):
    """Kombu's Redis transport, which also accepts the other URLs of this package."""

    Channel: Any = ListChannel

    #: The whole URL is passed in: kombu reads neither the path of a socket nor TLS options.
    can_parse_url = True

    def __init__(self, client: Any, **options: Any) -> None:
        _read_url(client)
        super().__init__(client, **options)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:  # noqa: FBT002 - kombu's
        """Return the URL of the connection, its password masked unless asked for."""
        client: Any = self.client
        if "://" in uri:
            return uri if include_password else str(maybe_sanitize_url(uri, mask))
        user, password = client.userid, client.password
        if include_password and client.credential_provider:
            known = address.provider(user, client.credential_provider).get_credentials()
            user, password = (None, *known)[-2:]
        return as_url(
            "rediss" if client.ssl else "redis",
            client.hostname or "127.0.0.1",
            client.port or self.default_port,
            user,
            password,
            str(client.virtual_host).lstrip("/") or "0",
            sanitize=not include_password,
            mask=mask,
        )


class Transport(ListTransport):
    """The transport for `broker_transport`."""

    Channel = Channel

    cycle: Any

    # Kombu lists KeyError, which a malformed message raises, among the connection's errors.
    connection_errors = tuple(
        error for error in redis.Transport.connection_errors if error is not KeyError
    )

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        check_options(client.transport_options)
        self.cycle = Poller()
        #: Queues that were declared as not durable.
        self.transient_queues: set[str] = set()
        #: Queues that are bound to fanout exchanges, with exchange and routing key.
        self.fanout_queues: dict[str, Any] = {}
        #: The number of messages that were delivered.
        self.delivered = 0
        #: The thread of the event loop that fetches, if there is one.
        self.loop_thread: int | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Fetch from a worker's event loop."""
        super().register_with_event_loop(connection, loop)
        self.loop_thread = threading.get_ident()
        self.cycle.loop = loop

    def on_readable(self, fileno: int) -> None:  # type: ignore[override]
        """Read a reply for an event loop; an empty one is ignored."""
        with suppress(Empty):
            super().on_readable(fileno)

    def _deliver(self, message: Any, queue: str) -> None:  # type: ignore[override]
        self.delivered += 1
        super()._deliver(message, queue)

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # type: ignore[override]
        """Deliver one message, or one fetch of an event loop; raises TimeoutError."""
        deadline = math.inf if timeout is None else monotonic() + timeout
        before = self.delivered
        try:
            while self.delivered == before:  # kombu returns for any reply, and for none
                with suppress(Empty):
                    self.cycle.get(self._deliver, max(deadline - monotonic(), 0))
                if self.delivered == before and monotonic() >= deadline:
                    raise TimeoutError
        finally:
            self.cycle.end_fetches()

    @staticmethod
    def check_server(client: Any) -> float:
        """Return the server's uptime in seconds, 0 if it is unknown; raises ServerTooOld.

        INFO needs a permission that few users have: without it, HELLO names the version.
        """
        try:
            about = client.info("server")
        except NoPermissionError:
            about = _greeting(client)
        name = "valkey" if "valkey_version" in about else "redis"
        version = str(about.get(f"{name}_version", ""))
        found = re.match(r"(\d+)\.(\d+)", version)
        if found and tuple(map(int, found.groups())) < MIN_VERSIONS[name]:
            oldest = (
                f"{each.title()} {major}.{minor}".removesuffix(".0") + " or newer"
                for each, (major, minor) in MIN_VERSIONS.items()
            )
            raise ServerTooOld(
                f"the server is {name.title()} {version}, and must be {', or '.join(oldest)}"
            )
        return float(about.get("uptime_in_seconds", 0))


def _greeting(client: Any) -> dict[str, Any]:
    """Return the server's version from HELLO, in the format of INFO; {} if that is refused."""
    try:
        reply = client.execute_command("HELLO")
    except NoPermissionError:
        return {}
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    known = {text(key): value for key, value in pairs}
    return {f"{text(known['server'])}_version": text(known["version"])}


def _read_url(client: Any) -> None:
    """Set a connection's parameters from its URL, as kombu does for its own transports."""
    if len(client.alt) > 1:
        raise UnknownServer("the broker's URL names several servers, and streams need one")
    # Kombu would fail over to its own transport, under the scheme's name.
    client.alt, client.cycle = [], None
    if "://" not in (client.hostname or ""):
        return
    server = address.read(client.hostname, "the broker's URL")
    own: dict[str, Any] = {
        name: server.options.pop(name) for name in _OPTIONS if name in server.options
    }
    own.update({name: float(value) for name, value in own.items() if name != "client_name"})
    client.transport_options = {**client.transport_options, **own}
    if server.scheme == "socket":  # kombu's channel reads it
        client.hostname = server.url
        return
    parsed = parse_url(server.url)
    client.hostname, client.port = parsed["hostname"], parsed["port"]
    client.userid = parsed["userid"] or client.userid
    client.password = parsed["password"] or client.password
    client.virtual_host = parsed["virtual_host"]
    client.ssl = parsed.get("ssl") or client.ssl
    client.credential_provider = parsed.get("credential_provider") or client.credential_provider
