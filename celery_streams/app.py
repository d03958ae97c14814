"""What a Celery program needs on this transport: its settings, or Celery's class with them."""

from typing import Any

import celery

#: What keeps jobs safe, beside the URLs of the broker and of the result store.
SETTINGS: dict[str, Any] = {
    "broker_transport": "celery_streams:Transport",
    # Outlives every message, and answers the caller of one that cannot be read.
    "worker_consumer": "celery_streams:Consumer",
    # Hands back no job that a process was just given.
    "worker_pool": "celery_streams:TaskPool",
    # A job is acknowledged when it has ended, not when it starts.
    "task_acks_late": True,
    # A pool process that dies hands its job back.
    "task_reject_on_worker_lost": True,
    # No job waits behind another while a worker is idle.
    "worker_prefetch_multiplier": 1,
    "broker_connection_retry_on_startup": True,
}
#: What stands before the URL of a result store, for Celery to choose its class by.
_STORE = "celery_streams:RedisBackend+"


def settings(broker: str, results: str | None = None) -> dict[str, Any]:
    """Return the settings for an app's `conf.update`, from one URL or two.

    `results` is where results are stored: the broker's Redis unless it names another.
    """
    return {**SETTINGS, "broker_url": broker, "result_backend": _STORE + (results or broker)}


class Celery(celery.Celery[Any]):
    """Celery's class, with these settings as its defaults; `backend` is `broker` unless given."""

    def __init__(
        self,
        main: str | None = None,
        broker: str | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> None:
        store = backend or broker
        if store and ":" in store and "+" not in store.partition("://")[0]:
            store = _STORE + store
        super().__init__(main, broker=broker, backend=store, **options)
        self.add_defaults(lambda: SETTINGS)
