"""Celery's class with our settings, and what it leaves alone."""

from types import SimpleNamespace
from typing import Any

import celery
import pytest
from celery.backends.base import DisabledBackend
from celery.canvas import group

import celery_streams
from celery_streams.app import SETTINGS
from celery_streams.errors import UnknownServer
from celery_streams.results.backend import RedisBackend

URL = "redis://127.0.0.1:6379/0"


def test_the_settings_are_defaults() -> None:
    app = celery_streams.Celery("mine", broker=URL, set_as_current=False)

    assert {name: app.conf[name] for name in SETTINGS} == SETTINGS
    assert app.backend.as_uri() == URL
    assert isinstance(app.backend, RedisBackend)


def test_the_configuration_of_a_program_wins() -> None:
    configuration = SimpleNamespace(worker_prefetch_multiplier=4, task_acks_late=False)
    app = celery_streams.Celery("mine", broker=URL, set_as_current=False)
    app.config_from_object(configuration)
    app.conf.worker_pool = "threads"

    assert app.conf.worker_prefetch_multiplier == 4
    assert app.conf.task_acks_late is False
    assert app.conf.worker_pool == "threads"
    assert app.conf.broker_transport == SETTINGS["broker_transport"]


def test_a_store_of_its_own_and_sockets_keep_their_urls() -> None:
    other: Any = celery_streams.Celery(broker=URL, backend="cache+memory://", set_as_current=False)
    socket: Any = celery_streams.Celery(broker="redis+socket:///run/redis", set_as_current=False)
    none: Any = celery_streams.Celery(broker=URL, backend="disabled", set_as_current=False)

    assert type(other.backend).__name__ == "CacheBackend"
    assert isinstance(socket.backend, RedisBackend)
    assert socket.backend.connparams["path"] == "/run/redis"
    assert isinstance(none.backend, DisabledBackend)


@pytest.mark.parametrize("name", ["result_backend", None])
@pytest.mark.parametrize("way", ["conf", "config_from_object", "namespace", "environment"])
def test_urls_of_the_configuration_have_our_store(
    way: str, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {"broker_url": URL, **({name: URL.replace("/0", "/1")} if name else {})}
    app: Any = celery_streams.Celery("mine", set_as_current=False)
    if way == "conf":
        app.conf.update(urls)
    elif way == "config_from_object":
        app.config_from_object(SimpleNamespace(**urls))
    elif way == "namespace":
        named = {f"CELERY_{key.upper()}": value for key, value in urls.items()}
        app.config_from_object(SimpleNamespace(**named), namespace="CELERY")
    else:
        for key, value in urls.items():
            monkeypatch.setenv(f"CELERY_{key.upper()}", value)

    assert isinstance(app.backend, celery_streams.RedisBackend)
    assert app.backend.as_uri() == (URL.replace("/0", "/1") if name else URL)


@pytest.mark.parametrize("url", [None, 7, "", "nonsense", "amqp://guest@127.0.0.1"])
def test_settings_of_another_server_are_refused(url: Any) -> None:
    with pytest.raises(UnknownServer, match=r"^the broker.s URL"):
        celery_streams.settings(url)
    if url:
        with pytest.raises(UnknownServer, match=r"^the result store.s URL"):
            celery_streams.settings(URL, url)


def test_a_stock_app_gets_the_fast_way_by_its_settings_alone() -> None:
    app: Any = celery.Celery("stock", set_as_current=False)
    other: Any = celery.Celery("other", broker="memory://", set_as_current=False)
    app.conf.update(celery_streams.settings(URL))
    assert isinstance(app.backend, celery_streams.RedisBackend)

    assert app.send_task.func == app.submission.send_task
    assert "send_task" not in vars(other)
    assert not hasattr(other, "submission")


def test_groups_of_other_apps_are_celerys() -> None:
    sent: list[str] = []
    other: Any = celery.Celery("other", broker="memory://", set_as_current=False)

    def run(number: int) -> None:
        """Do nothing."""

    job: Any = other.task(run)
    other.amqp.send_task_message = lambda producer, name, *_, **__: sent.append(name)
    group(job.s(1), job.s(2)).apply_async()

    assert sent == [job.name] * 2
