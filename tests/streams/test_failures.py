"""Errors of any class reach their caller with their name and their text."""

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from celery import chord, group

from tests.support.programs import OURS, worker
from tests.support.waiting import eventually

#: The name and the text of each kind of error.
ERRORS = {
    "KeywordOnly": ("KeywordOnly", "code 7"),
    "Derived": ("Derived", "derived 7"),
    "Speechless": ("Speechless", "Speechless('words')"),
    "Unreducible": ("Unreducible", "words"),
    "Local": ("Local", "words"),
    "Unpicklable": ("ValueError", "words"),
    "Marked": ("ValueError", "words"),
    "ExceptionGroup": ("ExceptionGroup", "words (2 sub-exceptions)"),
    "KeyError": ("KeyError", "'words'"),
}


@pytest.fixture(scope="module")
def program(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of a program whose worker runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAIN_URL", server_url)
        for name in ("plain", "failing"):
            sys.modules.pop(f"tests.streams.{name}", None)
        failing: Any = import_module("tests.streams.failing")

        with worker(failing, tmp_path_factory.mktemp("failing") / "log", OURS):
            yield failing
        backend: Any = failing.app.backend
        backend.result_consumer.stop()
        failing.app.close()


def raised(result: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks at it
        result.get(timeout=30)
    return caught.value


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_reaches_its_caller(program: Any, kind: str) -> None:
    name, text = ERRORS[kind]
    job = program.fail.delay(kind)

    error = raised(job)
    assert type(error).__name__ == name
    assert text in str(error)
    again = program.app.AsyncResult(job.id)
    assert str(again.result) == str(error)
    assert again.traceback


@pytest.mark.parametrize("kind", ["KeywordOnly", "Derived", "Unreducible"])
def test_an_error_whose_class_the_caller_has_is_caught_by_it(program: Any, kind: str) -> None:
    error = raised(program.fail.delay(kind))

    assert isinstance(error, getattr(program, kind))


@pytest.mark.parametrize("kind", ["KeywordOnly", "Derived", "Local", "ExceptionGroup"])
def test_an_error_reaches_the_caller_of_a_chord_or_a_group_and_a_callback(
    program: Any, kind: str
) -> None:
    name, text = ERRORS[kind]
    fail = program.fail

    body = chord([fail.s(kind), fail.s(kind)], program.on_error.si())()
    chords = raised(body)
    # The member's, as Celery raises it, and so again: whether it was waited for or not.
    assert type(chords).__name__ == name
    assert text in str(chords)
    later = chord([fail.s(kind), fail.s(kind)], program.on_error.si())()
    eventually("the chord has failed", later.ready)
    assert type(raised(later)).__name__ == name
    assert type(raised(group(fail.s(kind), fail.s(kind))())).__name__ == name
    job = fail.apply_async((kind,), link_error=program.on_error.s())
    raised(job)
    client = program.app.backend.client
    noted = eventually("the callback is called", lambda: client.get(f"error of {job.id}"))
    assert noted.decode().startswith(f"{name}: ")
