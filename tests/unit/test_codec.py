"""Values that plain JSON does not have arrive as they were sent."""

import base64
import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from kombu.utils.json import dumps, loads, object_hook

from cluster.errors import OutOfMemory, Unreadable
from cluster.values.codec import DECIMAL_BITS, Packed, pack, pack_whole, references, unpack
from tests.support.repo import ROOT


def travel(value: Any) -> Any:
    return loads(dumps(pack(value)))


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**DECIMAL_BITS - 1,
        2**DECIMAL_BITS,
        -(2**DECIMAL_BITS),
        10**4300 - 1,
        10**4300,
        -(10**20_000) + 7,
        1.5,
        1 + 2j,
        True,
        None,
        "text",
        [1, [10**5000, {"deep": 10**5000}]],
        {"__type__": "not ours"},
        {"__type__": "int", "__value__": {"data": "AAAA"}},
        [{"__type__": 1, "__value__": [10**5000]}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_arrives_as_it_was_sent(value: Any) -> None:
    received = travel(value)

    assert received == value
    assert type(received) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i2")[::2],
        np.array(3.5),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.full((2, 2), np.nan),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_arrives_with_its_type_shape_and_values(array: "np.ndarray[Any, Any]") -> None:
    received = travel({"in": [array]})["in"][0]

    assert received.dtype == array.dtype
    assert received.shape == array.shape
    np.testing.assert_array_equal(received, array)
    assert received.flags.writeable


def test_a_scalar_of_numpy_arrives_as_pythons() -> None:
    assert type(travel(np.int64(7))) is int


def test_the_digits_of_a_long_integer_are_never_written_as_decimal_text() -> None:
    assert repr(pack((10**5000,))) == "(<int>,)"


def test_an_array_of_objects_is_refused() -> None:
    with pytest.raises(TypeError, match="only numbers are supported"):
        pack(np.array([{}]))


def test_a_number_that_python_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot encode a float128"):
        pack(np.longdouble(1))


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("ndarray", {"data": ""}, "0 bytes for an array of float64 of shape"),
        ("ndarray", {"data": "AAAA" * 6}, "18 bytes for an array"),
        ("ndarray", {"data": "not base64!!!!!!!!!!!!!!!"}, "invalid 'ndarray' value"),
        ("ndarray", {"data": 7}, "invalid 'ndarray' value"),
        ("ndarray", {"shape": [10**15]}, "16 bytes for an array"),
        ("ndarray", {"shape": [-2]}, "shape ["),
        ("ndarray", {"shape": [True, 2]}, "shape ["),
        ("ndarray", {"shape": [1] * 100 + [2]}, "invalid 'ndarray' value"),
        ("ndarray", {"shape": [0, 2**70], "data": ""}, "invalid 'ndarray' value"),
        ("ndarray", {"shape": "2"}, "order 'C' and shape '2'"),
        ("ndarray", {"order": "K"}, "order 'K'"),
        ("ndarray", {"dtype": "|O"}, "is not numeric"),
        ("ndarray", {"dtype": "<M8[s]"}, "is not numeric"),
        ("ndarray", {"dtype": "f8,f8"}, "is not numeric"),
        ("ndarray", {"dtype": "float64"}, "is not numeric"),
        ("ndarray", {"dtype": "no type"}, "invalid 'ndarray' value"),
        ("ndarray", {"dtype": None}, "is not numeric"),
        (
            "ndarray",
            {"data": {"key": "celery-blob-x", "size": 8, "chunk": 2**21}},
            "8 bytes for an array",
        ),
        (
            "int",
            {"data": {"key": "celery-task-meta-x", "size": 8, "chunk": 8}},
            "invalid reference",
        ),
        ("int", {"data": {"key": "celery-blob-x", "size": -8, "chunk": 8}}, "invalid reference"),
        (
            "int",
            {"data": {"key": "celery-blob-x", "size": 10**20, "chunk": 8}},
            "invalid reference",
        ),
        ("int", {"data": {"key": "celery-blob-x", "size": 8, "chunk": 0}}, "invalid reference"),
        ("int", {"data": {"key": "celery-blob-x", "size": 8, "chunk": 1}}, "invalid reference"),
        (
            "int",
            {"data": {"key": "celery-blob-x", "size": 2**62, "chunk": 2**21}},
            "invalid reference",
        ),
        ("int", {"data": {}}, "invalid reference"),
        ("int", {"data": "?"}, "invalid 'int' value"),
        ("int", {}, "invalid 'int' value: 'data'"),
        ("json", {"data": "////"}, "invalid 'json' value"),
        ("dict", {"items": 7}, "invalid 'dict' value"),
        ("dict", {"items": [[1]]}, "invalid 'dict' value"),
    ],
)
def test_a_value_that_lies_is_refused(kind: str, changes: dict[str, Any], words: str) -> None:
    array = {"dtype": "<f8", "shape": [2], "order": "C", "data": "AAAA" * 5 + "AA=="}
    fields = {**array, **changes} if kind == "ndarray" else changes
    text = json.dumps({"__type__": kind, "__value__": fields})

    with pytest.raises(Unreadable, match=re.escape(words)):
        unpack(loads(text), lambda _, into: None)


LONG = {"__type__": "int", "__value__": {"data": base64.b64encode(b"\1" * 5000).decode()}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "f8," * 300_000),
        ("dtype", "(((" * 100_000 + "f8"),
        ("dtype", "<f8" + " " * 10**6),
        ("dtype", "<f3"),
        ("dtype", "<U10"),
        ("dtype", "V8"),
        ("dtype", ["<f8"] * 1000),
        ("dtype", {"names": ["a"], "formats": ["f8"]}),
        ("dtype", LONG),
        ("shape", [10**4000] * 10_000),
        ("shape", [2] * 65),
        ("shape", [LONG]),
        ("shape", [[2]]),
        ("shape", [2.0]),
        ("shape", {"0": 2}),
        ("shape", 2),
        ("order", "C" * 10**6),
        ("order", ["C"]),
        ("order", None),
        ("data", []),
        ("data", None),
    ],
)
def test_an_array_is_checked_by_its_form_before_numpy_sees_it(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"dtype": "<f8", "shape": [0], "order": "C", "data": "", name: value}
    text = json.dumps({"__type__": "ndarray", "__value__": fields})
    monkeypatch.setattr(np, "dtype", lambda _: pytest.fail("numpy sees it"))

    with pytest.raises(Unreadable, match="invalid 'ndarray' value") as raised:
        loads(text)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "parts",
    [
        [1],
        [1, 2, 3],
        ["1", "2"],
        "12",
        {"a": 1, "b": 2},
        5,
        None,
        [True, 1],
        [10**400, 0],
        [[1], 2],
        [LONG, 1],
    ],
)
def test_an_invalid_complex_number_is_unreadable(parts: Any) -> None:
    with pytest.raises(Unreadable, match="invalid 'complex' value"):
        loads(json.dumps({"__type__": "complex", "__value__": parts}))


@pytest.mark.parametrize(
    "inner",
    [
        b"{not json",
        b"\xff",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"__type__": "decimal", "__value__": "x"}',
        b'{"__type__": "uuid", "__value__": {"hex": 5}}',
        b'{"__type__": "datetime", "__value__": []}',
        b'{"__type__": [], "__value__": []}',
        b'{"__type__": "ndarray", "__value__": {}}',
    ],
)
def test_a_value_of_invalid_json_is_unreadable(inner: bytes) -> None:
    fields = {"data": base64.b64encode(inner).decode()}

    with pytest.raises(Unreadable):
        loads(json.dumps({"__type__": "json", "__value__": fields}))


def test_marked_dicts_in_each_other_are_looked_at_once() -> None:
    looked_at = 0

    class Counted(list[Any]):
        """A list that counts how often it is read."""

        def __iter__(self) -> Any:
            nonlocal looked_at
            looked_at += 1
            return super().__iter__()

    value: Any = Counted([1, 2, 3])
    for _ in range(100):
        items = [["__type__", "dict"], ["__value__", value]]
        value = object_hook({"__type__": "dict", "__value__": {"items": items}})

    assert looked_at == 0
    for _ in range(100):
        value = value["__value__"]
    assert value == [1, 2, 3]


@pytest.mark.parametrize("fields", [7, None, [], "text"])
@pytest.mark.parametrize("kind", ["int", "ndarray", "json", "dict"])
def test_a_value_without_fields_is_refused(kind: str, fields: Any) -> None:
    with pytest.raises(Unreadable, match=f"invalid '{kind}' value"):
        loads(json.dumps({"__type__": kind, "__value__": fields}))


def test_a_value_that_no_machine_holds_is_refused_before_it_is_fetched() -> None:
    reference = {"key": "celery-blob-x", "size": 2**40, "chunk": 2**29}
    fields = {"dtype": "<f8", "shape": [2**37], "order": "C", "data": reference}

    with pytest.raises(OutOfMemory, match="it needs 1099511627776 bytes of"):
        unpack(Packed("ndarray", fields), lambda _, into: pytest.fail("fetched"))


class Elsewhere(dict[str, bytes]):
    """A store of large values, as Redis is in the cluster."""

    def put(self, data: memoryview) -> dict[str, Any]:
        """Keep the bytes and return a reference to them."""
        key = f"celery-blob-{len(self)}"
        self[key] = bytes(data)
        return {"key": key, "size": len(data), "chunk": 2**21}

    def fill(self, reference: Any, into: memoryview) -> None:
        """Give the bytes back."""
        into[:] = self[reference["key"]]


@pytest.mark.parametrize(
    "value",
    [
        np.arange(9000.0).reshape(90, 100),
        np.asfortranarray(np.arange(90_000, dtype=">i4").reshape(300, 300)),
        np.arange(100_000)[::3],
        np.arange(40_000, dtype=np.complex128),
        np.arange(100_000) % 3 == 0,
        -(7**300_000),
        [list(range(200_000)), {"deep": np.ones(10_000)}],
        {"text": "ü" * 2**20},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_large_value_goes_elsewhere_and_comes_back(value: Any) -> None:
    elsewhere = Elsewhere()

    sent = dumps(pack_whole(value, elsewhere.put))
    carried = loads(sent)

    assert len(sent) < 1000
    assert {reference["key"] for reference in references(carried)} <= elsewhere.keys()
    assert dumps(pack(carried)) == sent  # a process that forwards it does not fetch it
    received = unpack(carried, elsewhere.fill)
    if isinstance(value, np.ndarray):
        assert (received.dtype, received.shape) == (value.dtype, value.shape)
        assert received.flags.f_contiguous == value.flags.f_contiguous or not value.flags.forc
    np.testing.assert_equal(received, value)


def test_a_large_array_is_put_elsewhere_without_a_copy() -> None:
    array = np.zeros(10_000)
    addresses = []

    def put(data: memoryview) -> dict[str, Any]:
        addresses.append(np.frombuffer(data, np.uint8).ctypes.data)
        return {}

    pack(array, put)

    assert addresses == [array.ctypes.data]


def test_a_small_value_stays_inside_the_message() -> None:
    assert pack_whole([np.ones(10), 10**5000, "text"], lambda _: pytest.fail("put elsewhere"))


def test_a_masked_array_is_refused() -> None:
    with pytest.raises(TypeError, match="its mask would be lost"):
        pack(np.ma.masked_less(np.arange(3), 1))


def test_plain_values_are_plain_json() -> None:
    assert json.loads(dumps(pack([4, 0.5, "x", None]))) == [4, 0.5, "x", None]


def test_an_array_passes_a_process_without_numpy_unchanged() -> None:
    sent = dumps(pack([np.arange(6.0).reshape(2, 3), 1]))
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from kombu.utils.json import dumps, loads\n"
        "from cluster.values.codec import pack\n"
        "value = loads(input())\n"
        "print(dumps(pack(value)))\n"
        "print(value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=sent,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stderr == ""
    passed_on, shown = done.stdout.splitlines()
    assert json.loads(passed_on) == json.loads(sent)
    assert shown == "[<array 2x3 of <f8>, 1]"


def test_what_a_task_changes_is_not_what_it_was_given() -> None:
    given = ([1, 2], {"a": [3], "b": [[4], {}]})
    args: Any = unpack(given, lambda *_: pytest.fail("fetched"))
    args[0].append(5)
    args[1]["a"].clear()
    args[1]["b"][0].clear()
    args[1]["b"][1]["c"] = 6

    assert given == ([1, 2], {"a": [3], "b": [[4], {}]})
