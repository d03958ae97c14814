"""Errors as they are stored and rebuilt."""

import json
import pickle
import sys
from threading import Lock
from typing import Any, Self

import click
import pytest
from celery.backends.base import Backend
from celery.utils.serialization import UnpickleableExceptionWrapper

from celery_streams.errors import Unreadable
from celery_streams.results.failures import describe, rebuild


class KeywordOnly(ValueError):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Rewording(Exception):
    """Has another text when it is rebuilt from its arguments."""

    def __init__(self, code: Any) -> None:
        super().__init__(f"failed with {code}")


class Speechless(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unreducible(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


class Final(Exception):
    """Has no subclass, and no instance without a key."""

    def __new__(cls, *, key: str) -> Self:
        """Create one from a key."""
        return super().__new__(cls, key)

    def __init__(self, *, key: str) -> None:
        super().__init__(f"final {key}")

    def __init_subclass__(cls) -> None:
        raise TypeError("no subclass")


class Outer:
    """A class that contains another."""

    class Inner(Exception):
        """A nested class."""


def local() -> Exception:
    """Return an error of a class that no other process can find."""

    class Local(Exception):
        pass

    return Local("of a function", Lock())


def travelled(error: BaseException) -> Exception:
    described = describe(error, json.dumps)
    return rebuild(json.loads(json.dumps(described)))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeywordOnly(code=7), "code 7"),
        (Rewording(7), "failed with 7"),
        (Speechless("a"), "Speechless('a')"),
        (Unreducible("text"), "text"),
        (Final(key="k"), "final k"),
        (Outer.Inner("inner"), "inner"),
        (FileNotFoundError(2, "No such file", "a.txt"), "[Errno 2] No such file: 'a.txt'"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "bad"),
        (ExceptionGroup("some", [ValueError(1)]), r"some (1 sub-exception)"),
        (ValueError((1, 2)), "(1, 2)"),
        (ValueError(10**4000), "1000"),
        (KeyError("key"), "'key'"),
        (click.exceptions.Exit(0), "0"),
        (UnpickleableExceptionWrapper("lost.module", "Odd", (), "Odd('text')"), "Odd('text')"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_keeps_its_name_and_its_text(error: Exception, text: str) -> None:
    name = getattr(error, "exc_cls_name", None) or type(error).__name__
    found = travelled(error)

    assert type(found).__name__ == name
    assert text in str(found)
    again = travelled(found)  # by a task that reraises it
    assert (type(again).__name__, str(again)) == (name, str(found))


@pytest.mark.parametrize("error", [KeywordOnly(code=7), Rewording(7), FileNotFoundError(2, "x")])
def test_an_error_whose_class_is_here_is_caught_by_it(error: Exception) -> None:
    found = travelled(error)

    assert isinstance(found, type(error))
    assert str(pickle.loads(pickle.dumps(found))) == str(error)  # noqa: S301 - our own


@pytest.mark.parametrize("error", [ValueError("x"), Outer.Inner("x", 1), KeyError("x")])
def test_an_error_that_can_be_rebuilt_is_of_its_very_class(error: Exception) -> None:
    found = travelled(error)

    assert type(found) is type(error)
    assert found.args == error.args


def test_an_error_of_a_function_has_its_name() -> None:
    found = travelled(local())

    assert type(found).__name__ == "Local"
    assert str(found).startswith("('of a function', <unlocked _thread.lock")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "GeneratorExit"),
        ("builtins", "BaseExceptionGroup"),
        ("asyncio.exceptions", "CancelledError"),
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "object"),
        ("this", "Zen"),
        ("antigravity", "Comic"),
        ("add.tasks", "Odd"),
        ("no such module", "Odd"),
        (None, "Odd"),
        ("os", "path.os.system"),
    ],
)
def test_only_exceptions_of_loaded_modules_are_rebuilt(module: str | None, name: str) -> None:
    before = set(sys.modules)
    found = rebuild({"exc_type": name, "exc_module": module, "exc_message": ["text"]})

    assert isinstance(found, Exception)
    assert type(found).__name__ == name.rpartition(".")[2]
    assert str(found) == "text"
    assert set(sys.modules) == before


@pytest.mark.parametrize("stored", [5, [], "text", ["exc_type"], {}, {"exc_message": "x"}])
@pytest.mark.parametrize("more", [{}, {"exc_type": 5}, {"exc_type": ""}, {"exc_type": "a\0b"}])
def test_an_invalid_error_is_unreadable(stored: Any, more: dict[str, Any]) -> None:
    if isinstance(stored, dict):
        stored = {**stored, **more}
    with pytest.raises(Unreadable, match="a failure is stored without"):
        rebuild(stored)


@pytest.mark.parametrize(
    "more",
    [
        {"exc_module": 5},
        {"exc_module": "\ud800"},
        {"exc_type": "x" * 2000},
        {"exc_type": ["SystemExit"]},
    ],
)
def test_an_invalid_name_is_unreadable(more: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="without the name of its error"):
        rebuild({"exc_type": "Odd", "exc_module": "builtins", **more})


def test_any_celery_program_reads_what_is_stored() -> None:
    from celery import Celery

    app: Celery[Any] = Celery(set_as_current=False)
    backend: Any = Backend(app, serializer="json")

    found = backend.exception_to_python(describe(Rewording(7), json.dumps))
    assert isinstance(found, Rewording)
    app.close()


def test_what_stock_celery_stored_is_read() -> None:
    wrapped = UnpickleableExceptionWrapper("lost.module", "Odd", (), "Odd('text')")
    kind = type(wrapped)
    stored = {
        "exc_type": kind.__name__,
        "exc_module": kind.__module__,
        "exc_message": [*wrapped.args],
    }

    found = rebuild(stored)
    assert type(found).__name__ == "Odd"
    assert str(found) == "Odd('text')"
