"""Errors of jobs as they are stored: the type's name, the arguments and the text.

Celery's own form has no text. It is lost where the type is not known to the reader, or cannot be
made from its arguments alone. Other Celery programs ignore the additional field.
"""

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from celery.utils.serialization import UnpickleableExceptionWrapper, ensure_serializable
from kombu.utils.encoding import safe_repr

from celery_streams.errors import Unreadable

#: Characters of a type's name, or of its module's.
MAX_NAME = 1024
_WRAPPER = (UnpickleableExceptionWrapper.__module__, UnpickleableExceptionWrapper.__qualname__)


def describe(error: BaseException, check: Callable[[Any], object]) -> dict[str, Any]:
    """Return what is stored of an error.

    `check` raises for an argument that cannot be stored; its `repr` is stored in its place.
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
    """Return the error that was stored; raises Unreadable for what is not an error.

    A type that this process has loaded is used if it is an Exception: no module is imported and
    nothing else is called, for anyone with access to the store chooses the names. Where the type
    is not loaded, or gives another text, the error is of a class made here, of the same name and,
    if possible, a subclass of the type.
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
    if error and _says(error, text if type(text) is str else None):
        return error
    if type(text) is not str:
        text = text_of(Exception(*args))
    for base in (kind, Exception) if kind else (Exception,):
        error = _stand_in(base, module, name, args, text)
        if error:
            return error
    return Exception(f"{name}: {text}")


_FIELDS = ("exc_module", "exc_type", "exc_message", "exc_text")


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_NAME and value.isprintable()


def _loaded(module: str | None, name: str) -> type[Exception] | None:
    """Return the exception class of this name if it is loaded.

    Read from the namespaces themselves: attributes of modules can import others.
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
    except Exception:  # noqa: BLE001 - a constructor may want other arguments
        return None
    return error if isinstance(error, Exception) else None


def _says(error: Exception, text: str | None) -> bool:
    """Return True if an error has a text, and this one if one is given."""
    try:
        return str(error) == (text if text is not None else str(error))
    except Exception:  # noqa: BLE001 - the class's own code
        return False


def _stand_in(
    base: type[Exception], module: str | None, name: str, args: tuple[Any, ...], text: str
) -> Exception | None:
    """Return an error of a new subclass that has the name and the text."""
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
    return error if _says(error, text) else None
