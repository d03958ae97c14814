"""Celery over Redis Streams: a kombu transport, a result backend and dead letters.

By settings alone, for any Celery program: docs/streams.md. Nothing that was accepted is lost,
whatever is killed: docs/reliability.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_streams.app import Celery, RedisBackend, settings
    from celery_streams.transport.transport import ListTransport, Transport
    from celery_streams.worker.consumer import Consumer
    from celery_streams.worker.pool import TaskPool

__all__ = [
    "Celery",
    "Consumer",
    "ListTransport",
    "RedisBackend",
    "TaskPool",
    "Transport",
    "__version__",
    "settings",
]

__version__ = "0.1.0"

#: Where each is. Imported when it is asked for: a caller needs no worker, nor a worker's 0.2 s.
_HOMES = {
    "Celery": "app",
    "Consumer": "worker.consumer",
    "ListTransport": "transport.transport",
    "RedisBackend": "app",
    "TaskPool": "worker.pool",
    "Transport": "transport.transport",
    "settings": "app",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
