"""Celery over Redis Streams: a kombu transport, a result backend and dead letters.

Any Celery program can use it through settings alone: docs/streams.md. An accepted job survives the
death of any process: docs/reliability.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_streams.app import Celery, RedisBackend, settings
    from celery_streams.transport.transport import ListTransport, Transport
    from celery_streams.worker.autoscaler import Autoscaler
    from celery_streams.worker.consumer import Consumer
    from celery_streams.worker.pool import TaskPool

__all__ = [
    "Autoscaler",
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

#: The module of each export. Imported lazily: a caller does not need the worker's modules.
_MODULES = {
    "Autoscaler": "worker.autoscaler",
    "Celery": "app",
    "Consumer": "worker.consumer",
    "ListTransport": "transport.transport",
    "RedisBackend": "app",
    "TaskPool": "worker.pool",
    "Transport": "transport.transport",
    "settings": "app",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
