"""The stored form of a job's error: the type's name, the arguments and the text.

Celery's form has no text, and loses it if the reader does not have the type or cannot make it from
the arguments alone. Other Celery programs ignore the additional field.
"""

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from celery.utils.serialization import UnpickleableExceptionWrapper, ensure_serializable
from kombu.utils.encoding import safe_repr

from celery_streams.errors import Unreadable

#: Length limit of a type's name and of its module's, in characters.
MAX_NAME = 1024
_WRAPPER = (UnpickleableExceptionWrapper.__module__, UnpickleableExceptionWrapper.__qualname__)


def describe(error: BaseException, check: Callable[[Any], object]) -> dict[str, Any]:
    """Return the stored form of an error.

    `check` raises for an argument that cannot be stored; its `repr` is stored instead.
    """
    kind = type(error)
    module: Any = kind.__module__
    name: Any = kind.__qualname__
    args: Any = getattr(error, "args", ())
    if isinstance(error, UnpickleableExceptionWrapper):
        module, name, args = error.exc_module, error.exc_cls_name, error.exc_args
    args = args if isinstance(args, list | tuple) else ()
    return {
        "exc_type": name,
        "exc_message": ensure_serializable(args, check),
        "exc_module": module,
        "exc_text": text_of(error),
    }


def text_of(error: BaseException) -> str:
    """Return an error's text, whatever its `__str__` does."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the task's own code
        return safe_repr(error)


def rebuild(stored: Any) -> Exception:
    """Return an error from its stored form; raises Unreadable if it is not an error.

    Anyone with access to the store chooses the type's name. So no module is imported, and a type
    is called only if it is loaded and an Exception. If it is not loaded, or its instance has
    another text, the error is of a new class with the same name, if possible a subclass of it.
    """
    if not isinstance(stored, Mapping):
        raise Unreadable(f"a failure is stored without its error: {type(stored).__name__}")
    name: Any = stored.get("exc_type")
    module: Any = stored.get("exc_module")
    if not _is_name(name) or not (module is None or _is_name(module)):
        raise Unreadable("a failure is stored without the name of its error")
    message: Any = stored.get("exc_message", "")
    text: Any = stored.get("exc_text")
    args = tuple(message) if isinstance(message, list | tuple) else (message,)
    if (module, name) == _WRAPPER and len(args) == 4:  # noqa: PLR2004 - stored by stock Celery
        return rebuild(dict(zip(_FIELDS, args, strict=True)))
    kind = _loaded(module, name)
    error = _instance(kind, args) if kind else None
    if error and _has_text(error, text if type(text) is str else None):
        return error
    if type(text) is not str:
        text = text_of(Exception(*args))
    for base in (kind, Exception) if kind else (Exception,):
        error = _substitute(base, module, name, args, text)
        if error:
            return error
    return Exception(f"{name}: {text}")


_FIELDS = ("exc_module", "exc_type", "exc_message", "exc_text")


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_NAME and value.isprintable()


def _loaded(module: str | None, name: str) -> type[Exception] | None:
    """Return the exception class of this name if it is loaded.

    Names are looked up in the namespaces: getting an attribute of a module can import another.
    """
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        if not isinstance(found, ModuleType | type):
            return None
        found = vars(found).get(part)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _instance(kind: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001 - the constructor may take other arguments
        return None
    return error if isinstance(error, Exception) else None


def _has_text(error: Exception, text: str | None) -> bool:
    """Return True if `str(error)` works and, if `text` is given, equals it."""
    try:
        return str(error) == (text if text is not None else str(error))
    except Exception:  # noqa: BLE001 - the class's own code
        return False


def _substitute(
    base: type[Exception], module: str | None, name: str, args: tuple[Any, ...], text: str
) -> Exception | None:
    """Return an error of a new subclass of `base` with this name and text; None if impossible."""
    stored = dict(zip(_FIELDS, (module, name, args, text), strict=True))
    short = name.rpartition(".")[2]
    members = {
        "__module__": module or __name__,
        "__qualname__": name,
        "__str__": lambda _: text,
        "__repr__": lambda _: f"{short}({text!r})",
        "__reduce__": lambda _: (rebuild, (stored,)),
    }
    try:
        metaclass: Any = type(base)
        kind = metaclass(short, (base,), members)
        error = _instance(kind, args) or Exception.__new__(kind, *args)
        error.args = args
    except Exception:  # noqa: BLE001 - a class may refuse to be subclassed
        return None
    return error if _has_text(error, text) else None
