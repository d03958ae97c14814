"""JSON of plain values: the same as kombu's, or None."""

import datetime as dt
import enum
import math
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from kombu.utils.json import dumps, loads

from celery_streams import fastjson
from tests.support.seed import chance


class Number(enum.IntEnum):
    """Numbers of another class."""

    ONE = 1


class Pair(NamedTuple):
    """A tuple of another class."""

    x: int
    y: int


PLAIN: list[Any] = [
    *(None, True, False, 0, -1, 2**64, -(2**64), 10**4299, 0.1, -0.0, 1e16, 5e-324, 1.7e308),
    *("", "é", "😀", "\x00\x1f\x7f\u2028", '"\\/', "null", "__type__", [], {}, (), [[]]),
    *([None], {"a": None, "null": 1.5}, {"__type__": 1}, [1, [2, (3, {"x": [4]})]]),
]
OTHER: list[Any] = [
    *(b"", 1j, Decimal(1), Number.ONE, Pair(1, 2), {1}, frozenset(), object(), uuid.UUID(int=0)),
    *(dt.datetime.now(dt.UTC), {1: 2}, {None: 1}, {"__type__": 1, "__value__": 2}),
    *("\ud800", 10**4300, [[b"x"]], {"a": Decimal(1)}),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_a_plain_value_is_encoded_as_kombu_does(value: Any) -> None:
    text = fastjson.encode(value)

    assert text is not None
    assert loads(text) == loads(dumps(value)) == fastjson.decode(text)
    assert repr(loads(text)) == repr(fastjson.decode(text))  # 0.0 and -0.0, True and 1


@pytest.mark.parametrize("value", OTHER, ids=lambda value: repr(type(value)))
def test_every_other_value_is_left_to_kombu(value: Any) -> None:
    assert fastjson.encode(value) is None
    assert fastjson.encode((1, [value])) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_does_not_become_null(value: float) -> None:
    text = fastjson.encode([value, None])

    assert text is not None
    assert repr(fastjson.decode(text)) == repr([value, None])


def test_a_list_in_itself_is_left_to_kombu() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert fastjson.encode(endless) is None


@pytest.fixture
def unlimited_digits() -> Iterator[None]:
    """A process that writes integers of any length."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("unlimited_digits")
def test_no_integer_is_longer_than_its_receiver_takes() -> None:
    assert fastjson.encode(10**5000) is None


def test_a_marked_value_is_decoded_by_kombu() -> None:
    moment = dt.datetime.now(dt.UTC)

    assert fastjson.decode(dumps([moment, 1]).encode()) == [moment, 1]


def test_random_values_keep_their_meaning() -> None:
    random = chance()

    def value(depth: int) -> Any:
        kind = random.randrange(8 if depth else 6)
        if kind < len(simple):
            return simple[kind]()
        if kind == len(simple):
            return [value(depth - 1) for _ in range(random.randrange(4))]
        return {simple[3](): value(depth - 1) for _ in range(random.randrange(4))}

    simple: list[Any] = [
        lambda: random.choice([None, True, False]),
        lambda: random.randrange(-(2 ** random.randrange(1, 300)), 2 ** random.randrange(1, 300)),
        lambda: random.uniform(-1, 1) * 10.0 ** random.randrange(-300, 300),
        lambda: "".join(map(chr, random.choices(range(0xD800), k=random.randrange(8)))),
        lambda: random.choice([math.inf, -math.inf]),
        lambda: random.choice(["null", "NaN", "\\", '"']),
    ]
    for _ in range(1000):
        expected = value(3)
        text = fastjson.encode(expected)
        assert text is not None
        assert repr(fastjson.decode(text)) == repr(loads(text)) == repr(expected)
