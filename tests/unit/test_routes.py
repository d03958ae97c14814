"""A job that no worker would run is refused before it is sent, without a broker."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, chord, chunks, group, xmap, xstarmap
from celery.exceptions import QueueNotFound

from callers.client import Client
from cluster.errors import UnknownTask
from cluster.routes import unknown_task


@pytest.fixture
def client() -> Iterator[Client]:
    """A client without a broker."""
    with Client("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0") as client:
        yield client


def test_a_misspelt_task_is_refused_with_the_nearest_name(client: Client) -> None:
    with pytest.raises(UnknownTask, match=r"did you mean 'add.tasks.add'"):
        client.app.send_task("add.tasks.ad", (4, 6))


def test_a_task_named_without_its_family_is_refused_with_its_full_name(client: Client) -> None:
    with pytest.raises(UnknownTask, match=r"did you mean 'factorial.tasks.factorial'"):
        client.app.send_task("factorial", (4,))


def test_an_unrouted_task_is_refused_with_the_names_there_are(client: Client) -> None:
    with pytest.raises(UnknownTask, match=r"known tasks: add.tasks.add, .*mat_mul.tasks.mat_mul"):
        client.app.send_task("send_mail", ("a name",))


def test_a_misspelt_queue_is_refused(client: Client) -> None:
    with pytest.raises(QueueNotFound, match="'ad'"):
        client.app.send_task("add.tasks.add", (4, 6), queue="ad")


@pytest.mark.parametrize(
    "canvas",
    [
        lambda add, ad: group(add(), ad()),
        lambda add, ad: chain(add(), ad()),
        lambda add, ad: chain(add(), group(add(), chain(add(), ad()))),
        lambda add, ad: chain(group(add(), add()), ad()),
        lambda add, ad: chord([add(), ad()], add()),
        lambda add, ad: chord([add(), add()], ad()),
        lambda add, ad: chord([add(), add()], add().on_error(ad())),
        lambda add, ad: group(chord([add(), add()], add()), chord([add(), add()], ad())),
        lambda add, ad: group(add(), xstarmap(ad(), [(1, 2)])),
        lambda add, ad: xmap(ad(), [1]),
        lambda add, ad: chunks(ad(), [(1, 2), (3, 4)], 1),
        lambda add, ad: chain(add(), xstarmap(ad(), [(1, 2)])),
        lambda add, ad: add().set(link=ad()),
        lambda add, ad: add().on_error(ad()),
        lambda add, ad: group(add(), add().set(link=[add(), ad()])),
    ],
)
def test_a_misspelt_task_anywhere_in_a_canvas_is_refused_before_anything_is_sent(
    client: Client, canvas: Callable[[Any, Any], Any]
) -> None:
    # If the first job were sent, the error would be that of a missing broker.
    def add() -> Any:
        return client.signature("add.tasks.add", 1, 1)

    def ad() -> Any:
        return client.signature("add.tasks.ad", 1, 1)

    with pytest.raises(UnknownTask, match=r"did you mean 'add.tasks.add'"):
        canvas(add, ad).apply_async()


@pytest.mark.parametrize(
    "canvas",
    [
        lambda add, wrong: chain(add(), wrong()),
        lambda add, wrong: group(chain(add(), add()), wrong()),
        lambda add, wrong: chord([add(), add()], wrong()),
        lambda add, wrong: add().set(link=wrong()),
    ],
)
@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"priority": 12}, ValueError),
        ({"countdown": -1}, ValueError),
        ({"eta": "garbage"}, ValueError),
        ({"time_limit": "x"}, TypeError),
        ({"queue": "nosuch"}, QueueNotFound),
    ],
    ids=str,
)
def test_a_wrong_option_anywhere_in_a_canvas_is_refused_before_anything_is_sent(
    client: Client,
    canvas: Callable[[Any, Any], Any],
    option: dict[str, Any],
    error: type[Exception],
) -> None:
    def add() -> Any:
        return client.signature("add.tasks.add", 1, 1)

    with pytest.raises(error):
        canvas(add, lambda: add().set(**option)).apply_async()


def test_a_task_that_celery_does_not_have_is_refused(client: Client) -> None:
    with pytest.raises(UnknownTask, match=r"no task is called 'celery.nosuch'"):
        client.app.send_task("celery.nosuch")


@pytest.mark.parametrize("name", ["celery.chord_unlock", "celery.accumulate"])
def test_celerys_own_tasks_have_a_queue(client: Client, name: str) -> None:
    assert client.app.amqp.router.route({}, name)["queue"].name == "add"


@pytest.mark.parametrize("name", ["celery.map", "celery.starmap"])
def test_a_map_goes_where_its_task_does(client: Client, name: str) -> None:
    inner = client.signature("mat_mul.tasks.mat_mul")
    route = client.app.amqp.router.route({}, name, kwargs={"task": inner, "it": []})

    assert route["queue"].name == "mat_mul"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("add.tasks.ad", "add.tasks.add"),
        ("add.task.add", "add.tasks.add"),
        ("factorial.tasks.factoral", "factorial.tasks.factorial"),
        ("foo.tasks.bar", None),
        ("", None),
        ("x" * 1_000_000, None),
        (7, None),
    ],
)
def test_the_error_of_an_unknown_name_suggests_a_similar_one(name: Any, near: str | None) -> None:
    text = str(unknown_task(name, ["add.tasks.add", "factorial.tasks.factorial"]))

    assert len(text) < 250
    assert ("did you mean" in text) == (near is not None)
    assert near is None or f"did you mean {near!r}?" in text
