"""Settings for the broker and the result store, by their URLs.

Transport and backend are named in the app's settings: kombu's and Celery's tables of URL schemes
are shared by all apps of a process and stay unchanged.
"""

from typing import Any

from celery_streams import address
from celery_streams.errors import UnknownServer
from cluster.connections import password, rabbitmq

#: Result backend for values of any size.
STORE = "cluster.values.backend:RedisBackend"
#: Variables by which Celery would bypass the configuration, and with it the password file.
BYPASSING_VARIABLES = ("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def broker(url: str, name: str = "the broker's URL", *, lists: bool = False) -> dict[str, Any]:
    """Return Celery's settings for a broker: Redis with streams or kombu's lists, or RabbitMQ.

    Raise UnknownServer, calling the URL `name`, for any other server.
    """
    if rabbitmq.is_url(url):
        rabbitmq.check_url(url, name)
        transport = rabbitmq.transport(url)
    elif url.partition("://")[0] in address.SCHEMES:
        url = address.read(url, name).url
        transport = f"celery_streams:{'ListTransport' if lists else 'Transport'}"
    else:
        raise _unknown(url, name, "redis://, rediss://, redis+socket://, valkey:// or amqp://")
    return {
        "broker_url": url,  # Celery's delayed delivery in RabbitMQ reads no other
        "broker_read_url": url,
        "broker_write_url": url,
        "broker_transport": transport,
    }


def results(url: str, name: str = "the result store's URL") -> str:
    """Return Celery's `result_backend` for a Redis URL; raise UnknownServer for any other."""
    url = url.removeprefix(f"{STORE}+")
    if url.partition("://")[0] not in address.SCHEMES:
        raise _unknown(url, name, "redis://, rediss://, redis+socket:// or valkey://")
    return f"{STORE}+{address.read(url, name).url}"


def with_password(url: str, name: str) -> str:
    """Return `url`, for Redis with its password read from the file (`password.py`)."""
    if url.partition("://")[0] in address.SCHEMES:
        return password.with_password_file(address.read(url, name).url)
    return url


def _unknown(url: str, name: str, known: str) -> UnknownServer:
    scheme, separator, _ = url.partition("://")
    hint = f"; {scheme[:40]}:// is not supported" if separator and scheme else ""
    return UnknownServer(
        f"{name} must be a URL such as redis://127.0.0.1:6379/0, one of {known}{hint}"
    )
