"""How values that plain JSON cannot hold travel in arguments and results.

`pack` and `pack_whole` wrap them before Celery encodes a message or a result; kombu's JSON
decoder, told of the types below, gives the plain value back at the other side. On the wire
each is `{"__type__": …, "__value__": {…, "data": …}}`, readable in any language:

- `"int"`, an integer of more than 4300 digits, which CPython refuses to write as decimal
  text: two's complement, the lowest byte first;
- `"ndarray"`, a numeric numpy array: `dtype`, `shape`, `order` (C or F) and its elements;
- `"json"`, a value whose JSON is long: that text, in UTF-8;
- `"complex"`, a complex number: `[real, imaginary]`;
- `"dict"`, a dict that looks like one of these: `[[key, value], …]`.

`data` is base64, or, of many bytes, a reference to where they are (`cluster.blobs`). Such a
value stays `Packed` where it is only passed on, until `unpack` fetches it.
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
from cluster import blobs, resources
from cluster.errors import OutOfMemory, Unreadable

if TYPE_CHECKING:
    import numpy as np

#: Integers of up to this many bits have at most 4300 digits: CPython's default limit
#: for decimal text (https://docs.python.org/3/library/stdtypes.html#int-max-str-digits).
DECIMAL_BITS = 14_284
#: Numpy's kinds of numeric dtype: bool, signed, unsigned, float, complex.
NUMERIC_KINDS = "biufc"
#: Integers and arrays of up to this many bytes travel inside the message or the result.
INLINE_BYTES = 64 * 1024
#: And JSON of up to this many: programs without this module can read it.
INLINE_JSON = 1024 * 1024

#: How numpy writes a numeric dtype; numpy's own parser takes far more, and any time.
_DTYPE = re.compile(r"[<>|][biufc](1|2|4|8|16|32)")
#: Dimensions of an array, as in numpy, and their greatest length.
MAX_DIMENSIONS, MAX_LENGTH = 64, 2**62

_MARK, _VALUE = "__type__", "__value__"
_SCALARS = frozenset({float, bool, type(None)})

#: Stores bytes elsewhere and returns a reference to them.
Put = Callable[[memoryview], Mapping[str, Any]]
#: Fills a buffer with the bytes that a reference stands for.
Fill = Callable[[Mapping[str, Any], memoryview], None]


class Packed:
    """A value on its way, as JSON has it.

    Its `repr` is short: Celery puts that of arguments and results into messages, log lines
    and events; a long integer's own raises ValueError.
    """

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields

    @property
    def reference(self) -> Mapping[str, Any] | None:
        """Where its bytes are, None if they are in it."""
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
    """Tell whether all are short scalars, which travel as they are: not packed, not large."""
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


# To send ---------------------------------------------------------------------------


def pack(value: Any, put: Put | None = None) -> Any:
    """Return `value` with long integers and arrays wrapped, inside containers too.

    With `put`, what is large is stored by it, and a reference takes its place. Tuples stay
    tuples. Raises TypeError for an array that holds anything but numbers.
    """
    if isinstance(value, int):
        return _pack_int(value, put) if value.bit_length() > DECIMAL_BITS else value
    if isinstance(value, list):
        return [pack(item, put) for item in value]
    if isinstance(value, tuple):
        return tuple(pack(item, put) for item in value)
    if isinstance(value, dict):
        return marked({key: pack(item, put) for key, item in value.items()})
    # A value can only be an array where numpy is loaded already: callers stay light.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _pack_array(value, numpy, put)
        if isinstance(value, numpy.generic):
            item = value.item()
            if isinstance(item, numpy.generic):
                raise TypeError(f"a {value.dtype} cannot travel: Python has no such number")
            return pack(item, put)
    return value


def marked(items: dict[Any, Any]) -> "dict[Any, Any] | Packed":
    """Return a dict whose values are packed; one of the shape that marks a type is packed, too."""
    return Packed("dict", {"items": [*items.items()]}) if items.keys() == _SHAPE else items


def pack_whole(value: Any, put: Put) -> Any:
    """Return what `pack` does; a value whose JSON is long becomes one reference."""
    if type(value) in {list, tuple, dict, str}:
        encoded = fastjson.encode(value)
        if encoded is not None:  # nothing in it has to be packed
            is_long = len(encoded) > INLINE_JSON
            return Packed("json", {"data": put(memoryview(encoded))}) if is_long else value
    packed = pack(value, put)
    if isinstance(packed, dict | list | tuple | str | bytes):
        text = dumps(packed)
        if len(text) > INLINE_JSON:
            return Packed("json", {"data": put(memoryview(text.encode()))})
    return packed


def _pack_int(value: int, put: Put | None) -> Packed:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return Packed("int", {"data": _data(memoryview(data), put)})


def _pack_array(array: Any, numpy: Any, put: Put | None) -> Packed:
    if array.dtype.kind not in NUMERIC_KINDS:
        raise TypeError(f"an array of {array.dtype} cannot travel: only numbers can")
    if isinstance(array, numpy.ma.MaskedArray):
        raise TypeError("a masked array cannot travel: its mask would be lost")
    array = numpy.asarray(array)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = numpy.ascontiguousarray(array)
    order = "C" if array.flags.c_contiguous else "F"
    fields = {"dtype": array.dtype.str, "shape": list(array.shape), "order": order}
    return Packed("ndarray", {**fields, "data": _data(_bytes_of(array, order, numpy), put)})


def _bytes_of(array: Any, order: str, numpy: Any) -> memoryview:
    """Return the memory of a contiguous array, not a copy."""
    flat = (array.T if order == "F" else array).reshape(-1)
    return memoryview(flat.view(numpy.uint8))


def _data(view: memoryview, put: Put | None) -> Any:
    if put and len(view) > INLINE_BYTES:
        return put(view)
    return base64.b64encode(view).decode("ascii")


# To receive ------------------------------------------------------------------------


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
    """Return `value` with what is packed in it rebuilt, its bytes fetched by `fill`.

    An array stays packed in a process without numpy. Raises Unreadable for a value that is
    not what it says, OutOfMemory for one that finds no room, and what `fill` raises.
    """
    if isinstance(value, Packed):
        return _build(value.kind, value.fields, fill)
    if type(value) is list and fastjson.SCALARS.issuperset(map(type, value)):
        return value.copy()  # a task may change it, and be retried with what it was given
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
        raise OutOfMemory(f"no memory for a value that arrives: {error or kind}") from None
    except RecursionError:
        raise Unreadable(f"what says it is {kind!r} is nested too deeply") from None


def _build_int(fields: dict[str, Any], fill: Fill) -> int:
    return int.from_bytes(_received("int", fields["data"], fill), "little", signed=True)


def _build_json(fields: dict[str, Any], fill: Fill) -> Any:
    text = _received("json", fields["data"], fill)
    try:
        value = loads(text)
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # a decoder of kombu's raises what it likes
        raise _lie("json", error) from error
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
        raise _lie("ndarray", error) from error
    if dtype.str != fields["dtype"]:
        raise _lie("ndarray", f"numpy has no dtype {fields['dtype']!r}")
    size = math.prod(shape) * dtype.itemsize
    elements = None if isinstance(data, dict) else _decoded("ndarray", data)
    given = data["size"] if elements is None else len(elements)
    if given != size:
        raise _lie("ndarray", f"{given} bytes are no array of {dtype} of shape {shape}")
    _make_room(size)
    try:
        array = np.empty(shape, dtype, order)
    except ValueError as error:  # more dimensions, or longer ones, than this numpy has
        raise _lie("ndarray", error) from error
    view = _bytes_of(array, order, np)
    if elements is None:
        fill(data, view)
    else:
        view[:] = elements
    return array


def _received(kind: str, data: Any, fill: Fill) -> memoryview | bytes:
    if isinstance(data, dict):
        size = data["size"]
        _make_room(size)
        # Memory that is taken as it is filled: the size may be a lie, which the first chunk tells.
        buffer = memoryview(mmap.mmap(-1, max(size, 1)))[:size]
        fill(data, buffer)
        return buffer
    return _decoded(kind, data)


def _decoded(kind: str, data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise _lie(kind, error) from error


def _make_room(size: int) -> None:
    # Linux grants what it does not have, and ends the process when it is used.
    if size > resources.memory():
        raise MemoryError(f"it takes {size} bytes, of {resources.memory()} here")


_SHAPE = {_MARK, _VALUE}
_BUILDERS: dict[str, Callable[[dict[str, Any], Fill], Any]] = {
    "int": _build_int,
    "json": _build_json,
    "ndarray": _build_array,
    "dict": _build_dict,
}


def _check(kind: str, fields: Any) -> None:
    """Raise Unreadable for fields that are not those of this kind, by their form alone."""
    if not isinstance(fields, dict):
        raise _lie(kind, type(fields).__name__)
    if kind == "dict":
        items = fields.get("items")
        if not isinstance(items, list) or not all(map(_is_item, items)):
            raise _lie(kind, "its items are not pairs of a text and a value")
        return
    if kind == "ndarray":
        _check_array(fields)
    data = fields.get("data")
    if isinstance(data, dict):
        blobs.check(data)
    elif not isinstance(data, str):
        raise _lie(kind, f"'data' is not text but {type(data).__name__}")


def _check_array(fields: dict[str, Any]) -> None:
    dtype, shape, order = (fields.get(name) for name in ("dtype", "shape", "order"))
    if order not in ("C", "F") or not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise _lie("ndarray", f"no array has order {_short(order)} and shape {_short(shape)}")
    if not all(type(length) is int and 0 <= length <= MAX_LENGTH for length in shape):
        raise _lie("ndarray", f"no array has shape {_short(shape)}")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise _lie("ndarray", f"an array of {_short(dtype)} is refused: only numbers may travel")


def _is_item(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)  # noqa: PLR2004 - a pair


def _short(value: Any) -> str:
    """Return the beginning of a field: it may be as long as the message."""
    try:
        return ascii(value[:80] if isinstance(value, str | list) else type(value).__name__)[:80]
    except (ValueError, RecursionError):  # of an integer that is too long, of too deep a list
        return type(value).__name__


def _lie(kind: str, why: object) -> Unreadable:
    return Unreadable(f"what says it is {kind!r} is none: {str(why)[:250]}")


def _decoder(kind: str) -> Callable[[Any], Any]:
    """Return what kombu's decoder calls: a value whose bytes are elsewhere stays packed."""

    def decode(fields: Any) -> Any:
        _check(kind, fields)
        if kind == "dict":  # what is packed in it stays so
            return dict(fields["items"])
        packed = Packed(kind, fields)
        return packed if packed.reference else _build(kind, fields, _nothing_to_fetch)

    return decode


def _nothing_to_fetch(reference: Mapping[str, Any], into: memoryview) -> None:
    raise Unreadable("a value inside a message refers to another")


def _encode_complex(value: complex) -> list[float]:
    return [value.real, value.imag]


def _decode_complex(parts: Any) -> complex:
    if not isinstance(parts, list) or [*map(type, parts)] not in _PAIRS:
        raise _lie("complex", _short(parts))
    try:
        return complex(*parts)
    except OverflowError as error:
        raise _lie("complex", error) from error


_PAIRS = ([float, float], [float, int], [int, float], [int, int])


# What is decoded is the plain value, not the wrapper: kombu's types expect the same.
_register: Callable[..., None] = register_type
_register(complex, "complex", _encode_complex, _decode_complex)
for _kind in _BUILDERS:  # `Packed` encodes itself (`__json__`): registered for the decoders
    _register(Packed, _kind, Packed.__json__, _decoder(_kind))
