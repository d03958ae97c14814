"""The settings of a Celery program on this transport, and a Celery class that has them."""

from functools import cached_property, partial
from typing import Any

import celery
from celery.app.backends import by_url

from celery_streams import address, bundles
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
    # Runs each job in the process that fetches it.
    "worker_pool": "celery_streams:TaskPool",
    "worker_autoscaler": "celery_streams:Autoscaler",
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

    `broker` and `results` are URLs; results are stored in the broker's Redis by default. Raises
    UnknownServer for any other URL.
    """
    address.read(broker, "the broker's URL")
    store = results or broker
    address.read(store, "the result store's URL")
    return {**SETTINGS, "broker_url": broker, "result_backend": f"{STORE}+{store}"}


class Celery(celery.Celery[Any]):
    """Celery's class with these settings as its defaults.

    Results are stored in the broker's Redis unless a `result_backend` is configured; that of a
    Redis URL is `RedisBackend`. `backend="disabled"` stores none.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_after_configure.connect(_add_defaults, weak=False)
        install(self)

    def _get_backend(self) -> Any:
        # Celery's hook, called once the configuration is read, wherever it comes from.
        conf: Any = self.conf
        url = self.backend_cls or conf.result_backend
        if not url and _is_redis(conf.broker_url):
            conf.result_backend = url = conf.broker_url
        found: Any = by_url(f"{STORE}+{url}" if _is_redis(url) else url, self.loader)
        store, url = found
        return store(app=self, url=url)

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


def _is_redis(url: Any) -> bool:
    return isinstance(url, str) and url.partition("://")[0] in SCHEMES


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
        bundles.install(app)
