"""Derives the callers' contracts, and the stub of typed calls, from the tasks' annotations."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from msgspec import Meta

from callers import contracts
from cluster.app import create
from cluster.families import BadTable

ROOT = Path(__file__).parents[1]
CONTRACTS = "callers/contracts.json"
STUB = "callers/calls.pyi"

_HEADER = "# Types of the calls of tasks, from their contracts. Made by `make contracts`."
#: The modules of the names in an annotation.
_MODULE = re.compile(r"\b([a-z_][\w.]*)\.\w")
_STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
_NAMES = {kind: name for name, kind in contracts.TYPES.items()}


# Contracts -------------------------------------------------------------------------


def of_task(task: str) -> dict[str, Any]:
    """Return the contract of a task of a family, with its summary and its first example."""
    with create("develop", set_as_current=False) as app:
        run = app.tasks[task].run
    if "timeout" in inspect.signature(run).parameters:
        line = inspect.unwrap(run).__code__.co_firstlineno
        raise BadTable(
            f"{task.partition('.')[0]}/tasks.py:{line}: {task} has a parameter timeout, which "
            "callers cannot pass by name: `client.call` has one of its own"
        )
    return {
        "summary": (inspect.getdoc(run) or "").partition("\n")[0],
        **_example(task),
        **contract(run),
    }


def _example(task: str) -> dict[str, Any]:
    """Return the arguments of a task's first example, if JSON has such values."""
    family, _, name = task.split(".")
    examples = [each for each in import_module(f"{family}.examples").EXAMPLES if each.task == name]
    with suppress(TypeError, ValueError):
        for each in examples[:1]:
            json.dumps([each.args, each.kwargs], allow_nan=False)
            return {"example": {"args": each.args, "kwargs": each.kwargs}}
    return {}


def contract(function: Any) -> dict[str, Any]:
    """Return the contract of a function, as `callers.contracts` reads it."""
    parameters = [
        {
            "name": each.name,
            "kind": each.kind.name,
            "required": each.default is Parameter.empty and each.kind.name not in _STARS,
            **_parameter(each),
        }
        for each in inspect.signature(function, eval_str=True).parameters.values()
    ]
    returns = get_type_hints(function).get("return", Any)
    return {"parameters": parameters, "returns": _text(returns)}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    if parameter.kind is Parameter.VAR_KEYWORD or parameter.annotation is Parameter.empty:
        return {}
    default = [None] if parameter.default is None else []
    described = describe(Union[parameter.annotation, *default])
    return _list(described) if parameter.kind is Parameter.VAR_POSITIONAL else described


def describe(annotation: Any) -> dict[str, Any]:
    """Return what a parameter of this annotation accepts, as `callers.contracts` reads it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        described = describe(parts[0])
        bounds = _bounds(parts[1:]) if {"int", "float"}.intersection(_types(described)) else {}
        return described | bounds
    if origin in {Union, UnionType}:
        return _union([describe(part) for part in parts])
    if origin is list or (origin is tuple and parts):
        return _list(_union([describe(part) for part in parts if part is not ...]))
    kind = origin or annotation
    if kind is tuple:
        kind = list
    return {"type": _NAMES[kind]} if kind in _NAMES else {}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "list", "items": items} if items else {"type": "list"}


def _bounds(metadata: Sequence[Any]) -> dict[str, Any]:
    return {
        key: getattr(meta, key)
        for meta in metadata
        if isinstance(meta, Meta)
        for key in contracts.BOUNDS
        if getattr(meta, key) is not None
    }


def _union(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what accepts all that the members accept."""
    if not all(members):
        return {}
    types = {name: contracts.TYPES[name] for member in members for name in _types(member)}
    also = {kind for each in types.values() for kind in contracts.ALSO.get(each, ())}
    union: dict[str, Any] = {"type": " | ".join(n for n, kind in types.items() if kind not in also)}
    lists = [member.get("items", {}) for member in members if "list" in _types(member)]
    if lists and (items := _union(lists)):
        union["items"] = items
    numbers = [m for m in members if {"int", "float", "complex"}.intersection(_types(m))]
    for key in contracts.BOUNDS:
        limits = {member.get(key) for member in numbers}
        if len(limits) == 1 and limits != {None}:
            union[key] = limits.pop()
    return union


def _types(described: Mapping[str, Any]) -> list[str]:
    return described["type"].split(" | ") if "type" in described else []


def _text(annotation: Any) -> str:
    """Return an annotation as a stub writes it, with the modules of its names."""
    if annotation is NoneType:
        return "None"
    return inspect.formatannotation(annotation).replace("typing.", "")


# Stub ------------------------------------------------------------------------------


def stub(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the stub of typed calls for tasks, by their names, and their contracts."""
    families: dict[str, list[str]] = {}
    for task, described in tasks.items():
        family, _, name = task.split(".")
        families.setdefault(family, []).extend(_method(name, described))
    returns = " ".join(described["returns"] for described in tasks.values())
    lines = [
        _HEADER,
        "from collections.abc import Callable, Sequence",
        "from typing import Any",
        "",
        *(f"import {module}" for module in sorted(set(_MODULE.findall(returns)))),
        "",
    ]
    for family, methods in families.items():
        lines += [f"class {_class(family)}:", *methods, ""]
    lines += [
        "class Tasks:",
        *(f"    {family}: {_class(family)}" for family in families),
        "    def __init__(self, call: Callable[..., Any]) -> None: ...",
        "",
    ]
    return "\n".join(lines)


def _class(family: str) -> str:
    return f"_{family.title().replace('_', '')}"


def _method(name: str, described: Mapping[str, Any]) -> list[str]:
    """Return the lines of a method, one for each parameter."""
    parameters: dict[str, list[str]] = {}
    for each in described["parameters"]:
        star = _STARS.get(each["kind"], "")
        accepted = each.get("items", {}) if star == "*" else each
        default = "" if each["required"] or star else " = ..."
        line = f"{star}{each['name']}: {_annotation(accepted)}{default}"
        parameters.setdefault(each["kind"], []).append(line)
    lines = ["self", *parameters.get("POSITIONAL_ONLY", ())]
    lines += ["/"] if "POSITIONAL_ONLY" in parameters else []
    lines += parameters.get("POSITIONAL_OR_KEYWORD", ())
    lines += parameters.get("VAR_POSITIONAL", ["*"])
    lines += [*parameters.get("KEYWORD_ONLY", ()), "timeout: float = ..."]
    lines += parameters.get("VAR_KEYWORD", ())
    return [
        f"    def {name}(",
        *(f"        {line}," for line in lines),
        f"    ) -> {described['returns']}: ...",
    ]


def _annotation(described: Mapping[str, Any]) -> str:
    """Return what a parameter accepts as an annotation; lists may be of any subtype's items."""
    if "type" not in described:
        return "Any"
    items = _annotation(described.get("items", {}))
    of_items = {"list": f"Sequence[{items}]", "dict": "dict[Any, Any]"}
    return " | ".join(of_items.get(name, name) for name in _types(described))
