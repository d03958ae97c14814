"""How values that plain JSON cannot hold travel in arguments and results.

`pack` wraps them before Celery encodes a message or a result; kombu's JSON
decoder, told of the types below, gives the plain value back at the other side.
On the wire each is `{"__type__": …, "__value__": …}`, readable in any language:

- an integer of more than 4300 digits, which CPython refuses to write as decimal
  text: `"int"`, its hexadecimal text;
- a complex number: `"complex"`, `[real, imaginary]`;
- a numeric numpy array: `"ndarray"`, dtype, shape and the bytes in C order as base64.
"""

import base64
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu.utils.json import register_type

if TYPE_CHECKING:
    import numpy as np

#: Integers of up to this many bits have at most 4300 digits: CPython's default limit
#: for decimal text (https://docs.python.org/3/library/stdtypes.html#int-max-str-digits).
DECIMAL_BITS = 14_284

#: Numpy's kinds of numeric dtype: bool, signed, unsigned, float, complex.
NUMERIC_KINDS = "biufc"


class LongInt:
    """An integer on its way, with a `repr` that never writes its digits.

    Celery puts the `repr` of arguments and results into messages, log lines and
    events; an integer's own raises ValueError past 4300 digits.
    """

    def __init__(self, value: int) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<int of {self.value.bit_length()} bits>"

    def __json__(self) -> dict[str, Any]:
        return {"__type__": "int", "__value__": hex(self.value)}


class Array:
    """A numeric array on its way."""

    def __init__(self, value: "np.ndarray[Any, Any]") -> None:
        if value.dtype.kind not in NUMERIC_KINDS:
            raise TypeError(f"an array of {value.dtype} cannot travel: only numbers can")
        self.value = value

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.value.shape))
        return f"<array {shape} {self.value.dtype}>"

    def __json__(self) -> dict[str, Any]:
        data = base64.b64encode(self.value.tobytes()).decode("ascii")
        return {
            "__type__": "ndarray",
            "__value__": {
                "dtype": self.value.dtype.str,
                "shape": list(self.value.shape),
                "data": data,
            },
        }


class OpaqueArray:
    """An array in a process without numpy, which can pass it on but not look into it.

    A worker gets one where it only carries a value: it joins the results of a chord
    whose members are of other families, or runs a link of a chain that keeps what it got.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __repr__(self) -> str:
        shape = "x".join(map(str, self._fields["shape"]))
        return f"<array {shape} {self._fields['dtype']}, to be read with numpy>"

    def __json__(self) -> dict[str, Any]:
        return {"__type__": "ndarray", "__value__": self._fields}


def pack(value: Any) -> Any:
    """Return `value` with long integers and arrays wrapped, inside containers too.

    Tuples stay tuples; all else that is not a list or a dict is returned as it is.
    Raises TypeError for an array that holds anything but numbers.
    """
    if isinstance(value, int):
        return LongInt(value) if value.bit_length() > DECIMAL_BITS else value
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, tuple):
        return tuple(pack(item) for item in value)
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    # A value can only be an array where numpy is loaded already: callers stay light.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return Array(value)
        if isinstance(value, numpy.generic):
            item = value.item()
            if isinstance(item, numpy.generic):
                raise TypeError(f"a {value.dtype} cannot travel: Python has no such number")
            return pack(item)
    return value


def _decode_int(text: str) -> int:
    return int(text, 16)


def _encode_complex(value: complex) -> list[float]:
    return [value.real, value.imag]


def _decode_complex(parts: list[float]) -> complex:
    return complex(*parts)


def _decode_array(fields: dict[str, Any]) -> "np.ndarray[Any, Any] | OpaqueArray":
    try:
        import numpy as np
    except ImportError:
        return OpaqueArray(fields)
    dtype = np.dtype(fields["dtype"])
    if dtype.kind not in NUMERIC_KINDS:
        raise ValueError(f"an array of {dtype} is refused: only numbers may travel")
    data = base64.b64decode(fields["data"], validate=True)
    shape = fields["shape"]
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are no array of {dtype} of shape {shape}")
    return np.frombuffer(bytearray(data), dtype).reshape(shape)


# What is decoded is the plain value, not the wrapper: kombu's types expect the same.
_register: Callable[..., None] = register_type
# `LongInt` and `Array` encode themselves (`__json__`): registered for their decoders.
_register(LongInt, "int", LongInt.__json__, _decode_int)
_register(Array, "ndarray", Array.__json__, _decode_array)
_register(complex, "complex", _encode_complex, _decode_complex)
