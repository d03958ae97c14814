"""Which servers carry the jobs and keep the results, by their URLs, and the classes that do it.

Classes are named in an app's own settings: what kombu's and Celery's schemes stand for is every
program's in the process, and stays as it is.
"""

from typing import Any

from celery_streams import address
from celery_streams.address import UnknownServer
from cluster import password, rabbitmq

#: The result store, for values of any size.
STORE = "cluster.backend:RedisBackend"
#: Celery's variables that name a broker past the configuration, and would have no password.
PAST_IT = ("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def broker(url: str, name: str = "the broker's URL", *, lists: bool = False) -> dict[str, Any]:
    """Return Celery's settings for a broker: Redis, by streams or kombu's lists, or RabbitMQ.

    Raises UnknownServer, calling the URL `name`, for what is neither.
    """
    if rabbitmq.is_url(url):
        rabbitmq.check_url(url, name)
        transport = rabbitmq.transport(url)
    elif url.partition("://")[0] in address.SCHEMES:
        url = address.read(url, name).url
        transport = f"celery_streams:{'ListTransport' if lists else 'Transport'}"
    else:
        raise _unknown(url, name, "redis://, rediss://, redis+socket://, valkey:// or amqp://")
    return {"broker_read_url": url, "broker_write_url": url, "broker_transport": transport}


def results(url: str, name: str = "the result store's URL") -> str:
    """Return Celery's `result_backend` for a Redis; raises UnknownServer for anything else."""
    url = url.removeprefix(f"{STORE}+")
    if url.partition("://")[0] not in address.SCHEMES:
        raise _unknown(url, name, "redis://, rediss://, redis+socket:// or valkey://")
    return f"{STORE}+{address.read(url, name).url}"


def with_password(url: str, name: str) -> str:
    """Return a URL such that the password is taken from its file: see cluster.password."""
    if url.partition("://")[0] in address.SCHEMES:
        return password.with_password_file(address.read(url, name).url)
    return url


def _unknown(url: str, name: str, known: str) -> UnknownServer:
    scheme, separator, _ = url.partition("://")
    begins = f"; {scheme[:40]}:// names another kind of server" if separator and scheme else ""
    return UnknownServer(
        f"{name} must be a URL such as redis://127.0.0.1:6379/0, one of {known}{begins}"
    )
