"""What a family's `examples.py` consists of: jobs and their outcomes. The tests run each."""

from typing import Any, NamedTuple

from cluster.values.codec import pack


class Example(NamedTuple):
    """A job of a task and the value it returns, or its `Digest`."""

    task: str
    args: tuple[Any, ...]
    value: Any
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never written to

    def __str__(self) -> str:
        return _label(self.task, self.args, self.kwargs)


class BadExample(NamedTuple):
    """A job that fails with this type of error, whose one line contains `words`."""

    task: str
    args: tuple[Any, ...]
    error: type[Exception]
    words: str
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never written to

    def __str__(self) -> str:
        return _label(self.task, self.args, self.kwargs)


class Digest(str):
    """The SHA-256 of an integer's decimal text, for a value of thousands of digits."""

    __slots__ = ()


def _label(task: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    shown = [repr(pack(arg)) for arg in args]
    shown += [f"{name}={pack(arg)!r}" for name, arg in kwargs.items()]
    return f"{task.replace('.tasks.', '.')}({','.join(shown).replace(' ', '')})"
