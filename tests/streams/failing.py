"""A plain Celery program whose tasks raise errors that are hard to store."""

from threading import Lock
from typing import Any

from tests.streams.plain import app

__all__ = ["app"]


class KeywordOnly(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Derived(ValueError):
    """Cannot be rebuilt from its arguments, unlike its parent."""

    def __init__(self, *, code: int) -> None:
        super().__init__("lost")
        self.code = code

    def __str__(self) -> str:
        return f"derived {self.code}"


class Speechless(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unreducible(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


def error(kind: str) -> Exception:
    """Return an error of a kind."""

    class Local(Exception):
        pass

    kinds: dict[str, Exception] = {
        "KeywordOnly": KeywordOnly(code=7),
        "Derived": Derived(code=7),
        "Speechless": Speechless("words"),
        "Unreducible": Unreducible("words"),
        "Local": Local("words"),
        "Unpicklable": ValueError(Lock(), "words"),
        "Marked": ValueError({"__type__": "unheard of", "__value__": "words"}),
        "ExceptionGroup": ExceptionGroup("words", [KeywordOnly(code=7), ValueError(1)]),
        "KeyError": KeyError("words"),
    }
    return kinds[kind]


@app.task(shared=False)
def fail(kind: str) -> None:
    """Raise an error."""
    raise error(kind)


@app.task(shared=False)
def on_error(request: Any, exc: Exception, traceback: Any) -> None:
    """Note the error that a callback receives."""
    backend: Any = app.backend
    backend.client.set(f"error of {request.id}", f"{type(exc).__name__}: {exc!r}")
