"""Encoding of values that plain JSON cannot represent, for arguments and results.

`pack` and `pack_whole` wrap them before Celery encodes a message or a result. The types are
registered with kombu's JSON decoder, which returns the plain value. On the wire each is
`{"__type__": …, "__value__": {…, "data": …}}`, readable in any language:

- `"int"`, an integer of more than 4300 digits, which CPython does not convert to decimal text:
  two's complement, little-endian;
- `"ndarray"`, a numeric numpy array: `dtype`, `shape`, `order` (C or F) and its elements;
- `"json"`, a value whose JSON is long: that text, in UTF-8;
- `"complex"`, a complex number: `[real, imaginary]`;
- `"dict"`, a dict of the same form as these: `[[key, value], …]`.

`data` is base64 or, for a large value, a reference to its bytes (`cluster.values.blobs`). A value
with a reference stays `Packed` until `unpack` fetches it.
"""

import base64
import math
import mmap
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps, loads, register_type

from celery_streams import fastjson
from cluster import resources
from cluster.errors import OutOfMemory, Unreadable
from cluster.values import blobs

if TYPE_CHECKING:
    import numpy as np

#: Largest integer, in bits, of at most 4300 digits, CPython's default limit for decimal text
#: (https://docs.python.org/3/library/stdtypes.html#int-max-str-digits).
DECIMAL_BITS = 14_284
#: numpy's kinds of numeric dtypes: bool, signed, unsigned, float, complex.
NUMERIC_KINDS = "biufc"
#: Largest integer or array, in bytes, that is part of the message or the result.
INLINE_BYTES = 64 * 1024
#: The same for JSON, which programs without this module can read.
MAX_INLINE_JSON = 1024 * 1024

#: A numeric dtype as numpy writes it; numpy's own parser accepts far more, in unbounded time.
_DTYPE = re.compile(r"[<>|][biufc](1|2|4|8|16|32)")
#: Largest number of an array's dimensions, as in numpy, and largest length of one.
MAX_DIMENSIONS, MAX_LENGTH = 64, 2**62

_MARK, _VALUE = "__type__", "__value__"
_SCALARS = frozenset({float, bool, type(None)})

#: Stores bytes outside the message and returns a reference to them.
Put = Callable[[memoryview], Mapping[str, Any]]
#: Reads the bytes of a reference into a buffer.
Fill = Callable[[Mapping[str, Any], memoryview], None]


class Packed:
    """A value in the form in which it is encoded as JSON.

    Its `repr` is short, since Celery puts the `repr` of arguments and results into messages, log
    lines and events; that of a long integer would raise ValueError.
    """

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields

    @property
    def reference(self) -> Mapping[str, Any] | None:
        """The reference to its bytes, or None if it contains them."""
        data = self.fields.get("data") if self.kind in _BUILDERS else None
        return data if isinstance(data, dict) else None

    def __repr__(self) -> str:
        if self.kind == "ndarray":
            shape = "x".join(map(str, self.fields["shape"]))
            return f"<array {shape} of {self.fields['dtype']}>"
        return f"<{self.kind}>"

    def __json__(self) -> dict[str, Any]:
        return {_MARK: self.kind, _VALUE: self.fields}


def are_scalars(*values: Any) -> bool:
    """Return True if all values are short scalars, which need no packing."""
    for value in values:
        kind = type(value)
        if kind is int:
            if value.bit_length() > DECIMAL_BITS:
                return False
        elif kind is str:
            if len(value) > INLINE_BYTES:
                return False
        elif kind not in _SCALARS:
            return False
    return True


# Packing ---------------------------------------------------------------------------


def pack(value: Any, put: Put | None = None) -> Any:
    """Return `value` with long integers and arrays packed, also inside containers.

    With `put`, large ones are stored by it and replaced by references. Tuples stay tuples.
    Raise TypeError for an array that is not numeric.
    """
    if isinstance(value, int):
        return _pack_int(value, put) if value.bit_length() > DECIMAL_BITS else value
    if isinstance(value, list):
        return [pack(item, put) for item in value]
    if isinstance(value, tuple):
        return tuple(pack(item, put) for item in value)
    if isinstance(value, dict):
        return marked({key: pack(item, put) for key, item in value.items()})
    # Unless numpy has been imported, no value can be an array: callers need not load it.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _pack_array(value, numpy, put)
        if isinstance(value, numpy.generic):
            item = value.item()
            if isinstance(item, numpy.generic):
                raise TypeError(f"cannot encode a {value.dtype}: Python has no such number")
            return pack(item, put)
    return value


def marked(items: dict[Any, Any]) -> "dict[Any, Any] | Packed":
    """Return a dict of packed values, itself packed if it looks like a packed value."""
    return Packed("dict", {"items": [*items.items()]}) if items.keys() == _SHAPE else items


def pack_whole(value: Any, put: Put) -> Any:
    """Return `pack(value, put)`, or one reference if the JSON of the value is long."""
    if type(value) in {list, tuple, dict, str}:
        encoded = fastjson.encode(value)
        if encoded is not None:  # plain JSON: nothing to pack
            is_long = len(encoded) > MAX_INLINE_JSON
            return Packed("json", {"data": put(memoryview(encoded))}) if is_long else value
    packed = pack(value, put)
    if isinstance(packed, dict | list | tuple | str | bytes):
        text = dumps(packed)
        if len(text) > MAX_INLINE_JSON:
            return Packed("json", {"data": put(memoryview(text.encode()))})
    return packed


def _pack_int(value: int, put: Put | None) -> Packed:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return Packed("int", {"data": _data(memoryview(data), put)})


def _pack_array(array: Any, numpy: Any, put: Put | None) -> Packed:
    if array.dtype.kind not in NUMERIC_KINDS:
        raise TypeError(f"cannot encode an array of {array.dtype}: only numbers are supported")
    if isinstance(array, numpy.ma.MaskedArray):
        raise TypeError("cannot encode a masked array: its mask would be lost")
    array = numpy.asarray(array)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = numpy.ascontiguousarray(array)
    order = "C" if array.flags.c_contiguous else "F"
    fields = {"dtype": array.dtype.str, "shape": list(array.shape), "order": order}
    return Packed("ndarray", {**fields, "data": _data(_bytes_of(array, order, numpy), put)})


def _bytes_of(array: Any, order: str, numpy: Any) -> memoryview:
    """Return a view of a contiguous array's memory."""
    flat = (array.T if order == "F" else array).reshape(-1)
    return memoryview(flat.view(numpy.uint8))


def _data(view: memoryview, put: Put | None) -> Any:
    if put and len(view) > INLINE_BYTES:
        return put(view)
    return base64.b64encode(view).decode("ascii")


# Unpacking -------------------------------------------------------------------------


def references(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the references of the packed values in `value`."""
    if fastjson.is_plain(value):
        return
    if isinstance(value, Packed):
        if value.reference:
            yield value.reference
        elif value.kind == "dict":
            yield from references(value.fields["items"])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)


def unpack(value: Any, fill: Fill) -> Any:
    """Return `value` with all packed values decoded, fetching their bytes by `fill`.

    Without numpy an array stays packed. Raise Unreadable for an invalid value, OutOfMemory for
    one that does not fit into memory, and whatever `fill` raises.
    """
    if isinstance(value, Packed):
        return _build(value.kind, value.fields, fill)
    if type(value) is list and fastjson.SCALARS.issuperset(map(type, value)):
        return value.copy()  # a task may change its argument, and a retry needs the original
    if isinstance(value, list):
        return [unpack(item, fill) for item in value]
    if isinstance(value, tuple):
        return tuple(unpack(item, fill) for item in value)
    if isinstance(value, dict):
        return {key: unpack(item, fill) for key, item in value.items()}
    return value


def _build(kind: str, fields: dict[str, Any], fill: Fill) -> Any:
    try:
        return _BUILDERS[kind](fields, fill)
    except MemoryError as error:
        raise OutOfMemory(f"not enough memory to decode a value: {error or kind}") from None
    except RecursionError:
        raise _invalid(kind, "nested too deeply") from None


def _build_int(fields: dict[str, Any], fill: Fill) -> int:
    return int.from_bytes(_received("int", fields["data"], fill), "little", signed=True)


def _build_json(fields: dict[str, Any], fill: Fill) -> Any:
    text = _received("json", fields["data"], fill)
    try:
        value = loads(text)
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # kombu's decoders may raise any error
        raise _invalid("json", error) from error
    return unpack(value, fill)


def _build_dict(fields: dict[str, Any], fill: Fill) -> dict[Any, Any]:
    return {key: unpack(item, fill) for key, item in fields["items"]}


def _build_array(fields: dict[str, Any], fill: Fill) -> "np.ndarray[Any, Any] | Packed":
    try:
        import numpy as np
    except ImportError:
        return Packed("ndarray", fields)
    shape, order, data = fields["shape"], fields["order"], fields["data"]
    try:
        dtype = np.dtype(fields["dtype"])
    except TypeError as error:
        raise _invalid("ndarray", error) from error
    if dtype.str != fields["dtype"]:
        raise _invalid("ndarray", f"numpy has no dtype {fields['dtype']!r}")
    size = math.prod(shape) * dtype.itemsize
    elements = None if isinstance(data, dict) else _decoded("ndarray", data)
    received = data["size"] if elements is None else len(elements)
    if received != size:
        raise _invalid("ndarray", f"{received} bytes for an array of {dtype} of shape {shape}")
    _check_memory(size)
    try:
        array = np.empty(shape, dtype, order)
    except ValueError as error:  # more or longer dimensions than this numpy supports
        raise _invalid("ndarray", error) from error
    view = _bytes_of(array, order, np)
    if elements is None:
        fill(data, view)
    else:
        view[:] = elements
    return array


def _received(kind: str, data: Any, fill: Fill) -> memoryview | bytes:
    if isinstance(data, dict):
        size = data["size"]
        _check_memory(size)
        # Memory is only allocated as it is filled: the size may be wrong, as the first chunk shows.
        buffer = memoryview(mmap.mmap(-1, max(size, 1)))[:size]
        fill(data, buffer)
        return buffer
    return _decoded(kind, data)


def _decoded(kind: str, data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise _invalid(kind, error) from error


def _check_memory(size: int) -> None:
    # Linux overcommits memory, and kills the process when it uses more than there is.
    if size > resources.memory():
        raise MemoryError(f"it needs {size} bytes of {resources.memory()}")


_SHAPE = {_MARK, _VALUE}
_BUILDERS: dict[str, Callable[[dict[str, Any], Fill], Any]] = {
    "int": _build_int,
    "json": _build_json,
    "ndarray": _build_array,
    "dict": _build_dict,
}


def _check(kind: str, fields: Any) -> None:
    """Raise Unreadable unless `fields` have the form of this kind; their data is not decoded."""
    if not isinstance(fields, dict):
        raise _invalid(kind, f"'__value__' must be a dict, not {type(fields).__name__}")
    if kind == "dict":
        items = fields.get("items")
        if not isinstance(items, list) or not all(map(_is_item, items)):
            raise _invalid(kind, "'items' must be [string, value] pairs")
        return
    if kind == "ndarray":
        _check_array(fields)
    data = fields.get("data")
    if isinstance(data, dict):
        blobs.check(data)
    elif not isinstance(data, str):
        raise _invalid(kind, f"'data' must be a string, not {type(data).__name__}")


def _check_array(fields: dict[str, Any]) -> None:
    dtype, shape, order = (fields.get(name) for name in ("dtype", "shape", "order"))
    if order not in ("C", "F") or not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise _invalid("ndarray", f"order {_short(order)} and shape {_short(shape)}")
    if not all(type(length) is int and 0 <= length <= MAX_LENGTH for length in shape):
        raise _invalid("ndarray", f"shape {_short(shape)}")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise _invalid("ndarray", f"dtype {_short(dtype)} is not numeric")


def _is_item(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)  # noqa: PLR2004 - a pair


def _short(value: Any) -> str:
    """Return the beginning of a field, which may be as long as the message."""
    try:
        return ascii(value[:80] if isinstance(value, str | list) else type(value).__name__)[:80]
    except (ValueError, RecursionError):  # too long an integer, too deep a list
        return type(value).__name__


def _invalid(kind: str, why: object) -> Unreadable:
    return Unreadable(f"invalid {kind!r} value: {str(why)[:250]}")


def _decoder(kind: str) -> Callable[[Any], Any]:
    """Return the function for kombu's decoder; a value with a reference stays packed."""

    def decode(fields: Any) -> Any:
        _check(kind, fields)
        if kind == "dict":  # the packed values in it stay packed
            return dict(fields["items"])
        packed = Packed(kind, fields)
        return packed if packed.reference else _build(kind, fields, _refuse_reference)

    return decode


def _refuse_reference(reference: Mapping[str, Any], into: memoryview) -> None:
    raise Unreadable("a value inside a message refers to another value")


def _encode_complex(value: complex) -> list[float]:
    return [value.real, value.imag]


def _decode_complex(parts: Any) -> complex:
    if not isinstance(parts, list) or [*map(type, parts)] not in _PAIRS:
        raise _invalid("complex", _short(parts))
    try:
        return complex(*parts)
    except OverflowError as error:
        raise _invalid("complex", error) from error


_PAIRS = ([float, float], [float, int], [int, float], [int, int])


# Untyped: kombu's stub expects the decoder to return the type that is encoded.
_register: Callable[..., None] = register_type
_register(complex, "complex", _encode_complex, _decode_complex)
for _kind in _BUILDERS:  # Packed has __json__, so only the decoder matters
    _register(Packed, _kind, Packed.__json__, _decoder(_kind))
