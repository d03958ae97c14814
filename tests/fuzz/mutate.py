"""Other JSON from JSON: libFuzzer's own changes of bytes seldom leave it well-formed."""

import base64
import binascii
import json
import random
from collections.abc import Iterator
from typing import Any

_ODD: list[Any] = [
    *(None, True, 0, -1, 2**31, 2**63, 10**400, 0.5, 1e308, float("inf"), float("nan")),
    *("", "x", "\ud800", "8d3f", "SUCCESS", "FAILURE", "<f8", "C", "base64", "x" * 1500, "AAAA"),
    *([], {}, [[]], {"__type__": "int", "__value__": {"data": "AQ=="}}, [None, None], ["a", None]),
    {"task": "add.tasks.add", "options": {}},
    {"key": "celery-blob-result-8d3f-x", "size": 8, "chunk": 2**20},
    {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": ["x"]},
    *({"__type__": kind, "__value__": "1"} for kind in ("decimal", "uuid", "datetime", "json")),
]


def mutate(data: bytes, chance: random.Random) -> bytes | None:
    """Return JSON with one value in it changed; None for what is not JSON."""
    start = max(data.find(b"{"), 0)
    if data.startswith(b"["):
        start = 0
    try:
        value, end = json.JSONDecoder().raw_decode(data[start:].decode())
        tail = data[start:].decode()[end:].encode()
        return data[:start] + json.dumps(_changed(value, chance)).encode() + tail
    except (ValueError, RecursionError):
        return None


def _changed(value: Any, chance: random.Random) -> Any:
    places = [*_places(value)]
    if not places:
        return chance.choice(_ODD)
    holder, key = chance.choice(places)
    inner = holder[key]
    what = chance.randrange(6)
    if what == 0 and isinstance(holder, list):
        holder.insert(key, inner)
    elif what == 1:
        del holder[key]
    elif what == 2:
        other, place = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[place]))
    elif what == 3:
        holder[key] = [inner]
    elif isinstance(inner, str) and (text := _inside(inner, chance)) is not None:
        holder[key] = text
    else:
        holder[key] = chance.choice(_ODD)
    return value


def _inside(text: str, chance: random.Random) -> str | None:
    """Return the base64 of other JSON than that which a text is the base64 of."""
    try:
        changed = mutate(base64.b64decode(text, validate=True), chance)
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(changed).decode() if changed else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict | list):
            for key in [*each] if isinstance(each, dict) else range(len(each)):
                yield each, key
                left.append(each[key])
