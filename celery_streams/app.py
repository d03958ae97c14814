"""The settings of a Celery program on this transport, and a Celery class that has them."""

from functools import cached_property, partial
from typing import Any

import celery

from celery_streams.address import SCHEMES
from celery_streams.install import install
from celery_streams.producer import starmap
from celery_streams.producer.submission import Submission
from celery_streams.results import backend

#: What keeps jobs safe, beside the URLs of the broker and of the result store.
SETTINGS: dict[str, Any] = {
    "broker_transport": "celery_streams:Transport",
    # Survives malformed messages, and reports them to their callers.
    "worker_consumer": "celery_streams:Consumer",
    # Releases no job that a pool process has already received.
    "worker_pool": "celery_streams:TaskPool",
    # Acks a job when it has ended, not when it starts.
    "task_acks_late": True,
    # Requeues the job of a pool process that dies.
    "task_reject_on_worker_lost": True,
    # Keeps a busy worker from holding jobs that an idle one could run.
    "worker_prefetch_multiplier": 1,
    "broker_connection_retry_on_startup": True,
}
#: The class of the result store.
STORE = "celery_streams:RedisBackend"


def settings(broker: str, results: str | None = None) -> dict[str, Any]:
    """Return the settings for an app's `conf.update`.

    `broker` and `results` are URLs; results are stored in the broker's Redis by default.
    """
    return {**SETTINGS, "broker_url": broker, "result_backend": f"{STORE}+{results or broker}"}


class Celery(celery.Celery[Any]):
    """Celery's class with these settings as its defaults; `backend` is `broker` unless given."""

    #: The class of the result store, which is put before its URL; a subclass may set none.
    result_store = STORE

    def __init__(
        self,
        main: str | None = None,
        broker: str | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> None:
        store = backend or broker
        if self.result_store and store and store.partition("://")[0] in SCHEMES:
            store = f"{self.result_store}+{store}"
        super().__init__(main, broker=broker, backend=store, **options)
        self.on_after_configure.connect(_add_defaults, weak=False)
        install(self)

    @cached_property
    def submission(self) -> Submission:
        """Sends plain jobs by their tasks' templates."""
        return Submission(self)

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *positional: Any, **options: Any
    ) -> Any:
        """Send a job by name, as Celery's `send_task`; raises QueueFull, too."""
        return self.submission.send_task(
            self.send_by_celery, name, args, kwargs, *positional, **options
        )

    def send_by_celery(self, name: str, *positional: Any, **options: Any) -> Any:
        """Send a job that is not plain."""
        return super().send_task(name, *positional, **options)

    def close(self) -> None:
        """Close the connections."""
        if "submission" in vars(self):
            self.submission.close()
        super().close()


def _add_defaults(source: Any, **_: Any) -> None:
    # Before Celery's own defaults: `add_defaults` would put them before the configuration.
    source.maps.insert(-1, SETTINGS)


class RedisBackend(backend.RedisBackend):
    """The result store that settings name; it gives any app the fast way to send."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _speed_up(self.app)


def _speed_up(app: Any) -> None:
    if isinstance(app, Celery) or "submission" in vars(app):
        return
    app.submission = Submission(app)
    app.send_task = partial(app.submission.send_task, app.send_task)
    install(app)
    if app.finalized:
        starmap.install(app)
