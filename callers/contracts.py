"""Contracts: what a task's parameters accept, checked before a job is submitted.

`contracts.json` has the contract of each task, which `make contracts` derives from its signature,
annotations and docstring, with the arguments of its first example, if JSON has such values. A
parameter has a `name`, a `kind` (of `inspect.Parameter`) and may be `required`; what it accepts is
described by

- `type`: names of TYPES, separated by ` | `; without it, any value;
- `items`: the same description of the items of a list, or of `*args`, whose type is `list`;
- `ge`, `gt`, `le`, `lt`: bounds of a number.

`returns` is not checked: it is the text that the stub of typed calls has.

A contract refuses no argument that a worker accepts. It judges a value by what the worker
receives, and passes each whose type only its encoder knows. The worker checks all arguments again.
"""

import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import msgspec

from cluster import arguments
from cluster.errors import UnknownTask

FILE = Path(__file__).with_name("contracts.json")
#: The types that are checked, by their names in the file.
TYPES: dict[str, type] = {
    "int": int,
    "float": float,
    "complex": complex,
    "str": str,
    "bool": bool,
    "list": list,
    "dict": dict,
    "None": NoneType,
}
#: Other types that a parameter of a type accepts. JSON has no tuples: a worker receives lists.
ALSO: dict[type, set[type]] = {float: {int}, complex: {int, float}, list: {tuple}}

_NUMBERS, _LISTS = frozenset({int, float}), frozenset({list, tuple})
#: The value of a parameter that is not given.
_OMITTED = ...
#: Types as which JSON encodes their subclasses; bool before int, of which it is one.
_ENCODED_AS = (bool, int, float, str, list, tuple, dict)


class _Bound(NamedTuple):
    """A bound: its words, the comparison that is true outside, and which of many values to try."""

    words: str
    is_outside: Callable[[Any, Any], bool]
    extreme: Callable[[Sequence[Any]], Any]


BOUNDS = {
    "ge": _Bound("at least", operator.lt, min),
    "gt": _Bound("above", operator.le, min),
    "le": _Bound("at most", operator.gt, max),
    "lt": _Bound("below", operator.ge, max),
}


class Accepted:
    """What a parameter, or an item of a list, accepts, as the file describes it."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._types = [TYPES[name] for name in described["type"].split(" | ")]
        self._kinds = frozenset(self._types).union(*(ALSO.get(each, ()) for each in self._types))
        self._items = Accepted(described["items"]) if "items" in described else None
        self._bounds = [
            (bound, bound.is_outside, described[key])
            for key, bound in BOUNDS.items()
            if key in described
        ]
        #: Types of which any value is accepted.
        self.unlimited = self._kinds.union({type(_OMITTED)}).difference(
            _LISTS if self._items else (), _NUMBERS if self._bounds else ()
        )

    def check(self, name: str, value: Any) -> None:
        """Raise TypeError or ValueError, naming the parameter, if the value is not accepted."""
        kind: type | None = type(value)
        if kind in self.unlimited:
            return
        if kind not in self._kinds:
            kind, value = _as_received(value)
            if kind is None or kind in self.unlimited:
                return
        if kind not in self._kinds:
            raise arguments.mismatch(name, value, *self._types)
        if kind in _NUMBERS:
            for bound, is_outside, limit in self._bounds:
                if is_outside(value, limit):
                    raise arguments.out_of_bounds(name, value, f"{bound.words} {limit}")
        elif self._items and not self._items.accepts_all(value):
            for position, item in enumerate(value):
                self._items.check(f"{name}[{position}]", item)

    def accepts_all(self, values: Sequence[Any]) -> bool:
        """Return True if all values are accepted; False if they have to be checked one by one."""
        if self.unlimited.issuperset(map(type, values)):
            return True
        if not self._kinds.issuperset(map(type, values)):
            return False
        numbers = [value for value in values if type(value) in _NUMBERS] if self._bounds else []
        if any(number != number for number in numbers):  # noqa: PLR0124 - NaN, which min ignores
            return False
        for bound, is_outside, limit in self._bounds if numbers else ():
            if is_outside(bound.extreme(numbers), limit):
                return False
        items = self._items
        return items is None or all(
            items.accepts_all(value) for value in values if type(value) in _LISTS
        )


def _as_received(value: Any) -> tuple[type | None, Any]:
    """Return the type as which a worker receives a value, or None if that is not known here.

    The value is returned without what a subclass of a number changes.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if type(value) is numpy.ndarray:
            return numpy.ndarray, value
        if isinstance(value, numpy.generic):
            value = value.item()
    if value is None or type(value) is complex:
        return type(value), value
    kind = next((each for each in _ENCODED_AS if isinstance(value, each)), None)
    return kind, kind.__pos__(value) if kind is int or kind is float else value


class Contract:
    """The contract of one task, whose parameters the file describes."""

    def __init__(self, task: str, parameters: Sequence[Mapping[str, Any]]) -> None:
        self._bind = _binder(task.rpartition(".")[2], parameters)
        #: Of the parameters that do not accept any value.
        self._accepted = [(each["name"], Accepted(each)) for each in parameters if "type" in each]

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for arguments that the task refuses."""
        given = self._bind(*args, **kwargs)
        for name, accepted in self._accepted:
            if type(given[name]) not in accepted.unlimited:  # saves most calls
                accepted.check(name, given[name])

    def errors(self, rows: Sequence[Sequence[Any]]) -> dict[int, Exception]:
        """Return the errors of calls, by their positions."""
        errors: dict[int, Exception] = {}
        if not rows or self._accepts_all(rows):
            return errors
        for position, row in enumerate(rows):
            try:
                self.check(row, {})
            except (TypeError, ValueError) as error:
                errors[position] = error.with_traceback(None)
        return errors

    def _accepts_all(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Return True if all rows are accepted; False if they have to be checked one by one.

        It checks columns, which takes a tenth of the time.
        """
        try:
            columns = self._bind(*zip(*rows, strict=True))
        except (TypeError, ValueError):  # some rows do not match the parameters
            return False
        return all(
            columns[name] is _OMITTED or accepted.accepts_all(columns[name])
            for name, accepted in self._accepted
        )


def _binder(name: str, parameters: Sequence[Mapping[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a function that returns its arguments by name, and raises Python's own errors."""
    described = []
    for each in parameters:
        is_optional = not each["required"] and not each["kind"].startswith("VAR_")
        default = _OMITTED if is_optional else Parameter.empty
        described.append(Parameter(each["name"], getattr(Parameter, each["kind"]), default=default))
    signature = Signature(described)
    scope: dict[str, Any] = {}
    exec(f"def bind{signature}: return locals()", scope)  # noqa: S102 - only a `def` has these errors
    scope["bind"].__qualname__ = name
    bind: Callable[..., dict[str, Any]] = scope["bind"]
    return bind


@cache
def _tasks() -> dict[str, Any]:
    tasks: dict[str, Any] = msgspec.json.decode(FILE.read_bytes())
    return tasks


@cache
def _contracts() -> dict[str, Contract]:
    return {task: Contract(task, each["parameters"]) for task, each in _tasks().items()}


def described(task: str) -> dict[str, Any]:
    """Return what the file says about a task that it has."""
    return dict(_tasks()[task])


def first_task(family: str) -> str:
    """Return the first task of a family's `tasks.py`; raises UnknownTask if the file has none."""
    for task in _tasks():
        if task.startswith(f"{family}.tasks."):
            return task
    raise UnknownTask(f"{FILE.name} has no task of {family}: run `make contracts`")


def of(task: str) -> Contract | None:
    """Return the contract of a task; None for a task of a family that was deployed later."""
    return _contracts().get(task)


def check(task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for arguments that a task refuses by its contract."""
    if contract := of(task):
        contract.check(args, kwargs)


def check_signature(signature: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check the arguments of a signature of one job, called with further arguments.

    A job with a queue of its own passes: other workers may take it.
    """
    if signature.subtask_type is not None or signature.options.get("queue"):
        return
    own_args, own_kwargs = signature.args or (), signature.kwargs or {}
    if signature.immutable:
        args, kwargs = (), {}
    check(signature.task, (*args, *own_args), {**own_kwargs, **kwargs})
