"""Fast JSON for plain values, compatible with kombu's.

Plain values are numbers, text, booleans, None, and lists and mappings of them. All others are left
to kombu, which encodes the types registered with it as marked objects.
"""

import sys
from math import isfinite
from types import NoneType
from typing import Any

import msgspec
from kombu.utils.json import dumps, loads

#: CPython's default limit on the decimal digits of an integer; a receiver rejects more.
MAX_DIGITS = 4300

#: Plain types that contain no other values.
SCALARS = frozenset({int, float, str, bool, NoneType})
#: Kombu's mark in the JSON of a value that is not plain.
MARK = b"__type__"
_MARKED = {"__type__", "__value__"}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encode(value: Any) -> bytes | None:
    """Return the JSON of a plain value; None if the value is not plain."""
    try:
        if type(value) is str:
            return _encode(value)
        if not 0 < sys.get_int_max_str_digits() <= MAX_DIGITS or not is_plain(value):
            return None
        return _encoded(value)
    except (ValueError, RecursionError):  # a lone surrogate, too many digits, a cyclic list
        return None


def _encoded(value: Any) -> bytes:
    text = _encode(value)
    # msgspec writes NaN and infinities as null, kombu as they are.
    if b"null" in text and not _is_finite([value]):
        return dumps(value).encode()
    return text


def _is_finite(values: Any) -> bool:
    """Return True if the floats in plain values are all finite."""
    for value in values:
        kind = type(value)
        if kind is float:
            if not isfinite(value):
                return False
        elif kind is dict:
            if not _is_finite(value.values()):
                return False
        elif (kind is list or kind is tuple) and not _is_finite(value):
            return False
    return True


def is_plain(value: Any) -> bool:
    """Return True if JSON preserves a value; tuples come back as lists."""
    kind = type(value)
    if kind is dict:
        if not all(type(key) is str for key in value) or value.keys() == _MARKED:
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in SCALARS
    return SCALARS.issuperset(map(type, value)) or all(map(is_plain, value))


def decode(text: bytes) -> Any:
    """Return the value of JSON that kombu wrote; raises the errors of kombu's decoder."""
    if MARK not in text:
        try:
            return _decode(text)
        except msgspec.MsgspecError:  # NaN or a lone surrogate, which kombu's decoder accepts
            pass
    return loads(text)
