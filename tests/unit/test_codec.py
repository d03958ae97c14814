"""What cannot be written as plain JSON arrives as it was sent."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from kombu.utils.json import dumps, loads

from cluster.codec import DECIMAL_BITS, pack
from tests.repo.repo import ROOT


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
    assert repr(pack((10**5000,))) == "(<int of 16610 bits>,)"


def test_an_array_of_objects_is_refused() -> None:
    with pytest.raises(TypeError, match="only numbers can"):
        pack(np.array([{}]))


def test_a_number_that_python_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="float128 cannot travel"):
        pack(np.longdouble(1))


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "<f8", "shape": [2], "data": ""},
        {"dtype": "<f8", "shape": [10**15], "data": "AAAAAAAAAAA="},
        {"dtype": "|O", "shape": [1], "data": "AAAAAAAAAAA="},
        {"dtype": "<f8", "shape": [1], "data": "not base64"},
        {"dtype": "no type", "shape": [1], "data": "AAAAAAAAAAA="},
        {},
    ],
)
def test_a_lying_array_is_refused(fields: dict[str, Any]) -> None:
    text = json.dumps({"__type__": "ndarray", "__value__": fields})

    with pytest.raises((ValueError, TypeError, KeyError)):
        loads(text)


def test_plain_values_are_plain_json() -> None:
    assert json.loads(dumps(pack([4, 0.5, "x", None]))) == [4, 0.5, "x", None]


def test_an_array_passes_a_process_without_numpy_unchanged() -> None:
    sent = dumps(pack([np.arange(6.0).reshape(2, 3), 1]))
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from kombu.utils.json import dumps, loads\n"
        "from cluster.codec import pack\n"
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
    assert shown == "[<array 2x3 <f8, to be read with numpy>, 1]"
