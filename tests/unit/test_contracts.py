"""Contracts: what they refuse, and that they refuse nothing which a worker accepts."""

import enum
from collections import namedtuple
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from math import nan
from typing import Annotated, Any, Optional

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils.json import dumps, loads
from msgspec import Meta

from callers import contracts
from callers.client import Client
from callers.contracts import Contract
from celeryconfig import task_routes
from cluster.examples import BadExample, Example
from cluster.values.codec import Packed, pack, unpack
from develop.contracts import contract, describe
from tests.support.families import BAD_JOBS, JOBS, function

#: What a task raises for bad arguments; a sum may overflow before it comes to the bad one.
REFUSALS = (TypeError, ValueError, OverflowError)


class Whole(enum.IntEnum):
    """Numbers that are of a subclass of int."""

    MINUS = -1
    ONE = 1


class Backwards(int):
    """An int that compares wrongly; JSON does not."""

    def __lt__(self, other: object) -> bool:
        return True


Pair = namedtuple("Pair", "x y")  # noqa: PYI024 - untyped on purpose


class Text(str):
    """A string of a subclass."""

    __slots__ = ()


def received(value: Any) -> Any:
    """Return an argument as a worker gets it."""

    def fill(*_: object) -> None:
        raise AssertionError("no value is stored outside the message")

    return unpack(loads(dumps(pack(value))), fill)


def error(task: str, *args: Any, **kwargs: Any) -> str:
    """Return a contract's error of a call, or an empty text."""
    try:
        contracts.check(task, args, kwargs)
    except REFUSALS as refused:
        return f"{type(refused).__name__}: {refused}"
    return ""


# What is refused -------------------------------------------------------------------


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_a_good_job_is_accepted(job: Example) -> None:
    assert error(job.task, *job.args, **job.kwargs) == ""
    found = contracts.of(job.task)
    assert found
    assert job.kwargs or found.errors([job.args] * 3) == {}


@pytest.mark.parametrize("job", BAD_JOBS, ids=str)
def test_a_bad_job_is_refused_with_its_own_error_or_left_to_the_worker(job: BadExample) -> None:
    refused = error(job.task, *job.args, **job.kwargs)

    assert refused == "" or refused.startswith(f"{job.error.__name__}: ")


@pytest.mark.parametrize(
    ("task", "args", "words"),
    [
        ("factorial", ("two",), "n must be a whole number, not 'two'"),
        ("factorial", (True,), "n must be a whole number, not True"),
        ("factorial", (np.float64(2),), "n must be a whole number, not 2.0"),
        ("factorial", (-1,), "n must be at least 0, not -1"),
        ("factorial", (Whole.MINUS,), "n must be at least 0, not -1"),
        ("factorial", (np.int8(-1),), "n must be at least 0, not -1"),
        ("add", (np.True_, 1), "x must be a number, not True"),
        ("add", (4,), "add() missing 1 required positional argument: 'y'"),
        ("add", (4, 6, 7), "add() takes 2 positional arguments but 3 were given"),
        ("tsum", (7,), "numbers must be a list, not 7"),
        ("tsum", ([1, "2"],), "numbers[1] must be a number, not '2'"),
        ("error_of", (7,), "job_id must be a string, not 7"),
        ("mat_mul", (0, 5), "m must be at least 1, not 0"),
    ],
    ids=repr,
)
def test_a_contract_refuses_in_the_words_of_the_worker(
    task: str, args: tuple[Any, ...], words: str
) -> None:
    [name] = [each for each in task_routes[0] if each.endswith(f".{task}")]
    with pytest.raises(REFUSALS) as at_worker:
        function(name)(*map(received, args))

    assert str(at_worker.value) == words
    assert error(name, *args) == f"{at_worker.type.__name__}: {words}"


def test_an_argument_that_may_be_none_says_so() -> None:
    refused = error("mat_mul.tasks.mat_mul", 5, 5, "x")

    assert refused == "TypeError: seed must be a whole number or None, not 'x'"


def test_named_arguments_are_checked() -> None:
    assert error("add.tasks.add", 4, y="six") == "TypeError: y must be a number, not 'six'"
    assert error("add.tasks.add", 4, z=6).endswith("got an unexpected keyword argument 'z'")
    assert error("add.tasks.add", 4, x=6).endswith("got multiple values for argument 'x'")
    assert error("add.tasks.add", x=4, y=6) == ""


def test_an_error_is_short_whatever_the_value() -> None:
    for value in ([10**5000], "x" * 10_000, np.zeros(10**6), {1: 10**5000}):
        assert len(error("factorial.tasks.factorial", value)) < 200


# What is accepted ------------------------------------------------------------------

#: Values of all kinds, and how they change on their way.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.sampled_from([Whole.MINUS, Whole.ONE, Backwards(5), Text("a"), Decimal(2)]),
    st.builds(pow, st.just(10), st.just(5000)),  # its repr fails
    st.sampled_from([np.int64(3), np.int8(-1), np.uint64(2), np.float32(0.5), np.float64(2)]),
    st.sampled_from([np.complex64(1j), np.bool_(1), np.str_("a"), np.array(5), np.arange(3)]),
    st.binary(max_size=2),
)
VALUES = st.recursive(
    SCALARS,
    lambda each: st.one_of(
        st.lists(each, max_size=3),
        st.lists(each, max_size=3).map(tuple),
        st.tuples(each, each).map(lambda pair: Pair(*pair)),
        st.dictionaries(st.text(max_size=2), each, max_size=2),
    ),
    max_leaves=4,
)
#: Tasks that neither wait nor fail on purpose.
QUICK = sorted(set(task_routes[0]) - {"add.tasks.error_of", "add.tasks.longtime_add"})


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(QUICK),
    st.lists(VALUES, max_size=5),
    st.dictionaries(st.sampled_from(["x", "y", "n", "m", "seed", "rows", "a"]), VALUES, max_size=2),
)
def test_what_a_contract_refuses_the_task_refuses_too(
    task: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    if error(task, *args, **kwargs):
        with pytest.raises(REFUSALS):
            function(task)(*map(received, args), **{k: received(v) for k, v in kwargs.items()})


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(QUICK), st.data())
def test_a_good_job_with_one_other_argument_is_refused_by_the_task_if_by_the_contract(
    task: str, data: st.DataObject
) -> None:
    job = data.draw(st.sampled_from([job for job in JOBS if job.task == task and not job.kwargs]))
    args = [*job.args]
    args[data.draw(st.integers(0, len(args) - 1))] = data.draw(VALUES)

    if error(task, *args):
        with pytest.raises(REFUSALS):
            function(task)(*map(received, args))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(task_routes[0])), st.lists(st.lists(VALUES, max_size=3), max_size=4))
def test_rows_are_judged_like_calls(task: str, rows: list[list[Any]]) -> None:
    found = contracts.of(task)
    assert found
    expected = {i: error(task, *row) for i, row in enumerate(rows) if error(task, *row)}

    errors = {i: f"{type(each).__name__}: {each}" for i, each in found.errors(rows).items()}
    assert errors == expected


UNKNOWN = [Packed("int", {"data": "BQ=="}), gmpy2.mpz(5), Fraction(5), Decimal(5), b"5"]


@pytest.mark.parametrize("value", [*UNKNOWN, np.longdouble(5)], ids=repr)
def test_values_that_only_their_encoder_knows_are_accepted(value: Any) -> None:
    assert error("factorial.tasks.factorial", value) == ""


def test_a_task_without_a_contract_accepts_everything() -> None:
    assert error("power.tasks.square", "two", and_so="on") == ""


# Any signature ---------------------------------------------------------------------


Open = Annotated[float, Meta(gt=0, lt=5)]


def example(a: int, /, b: list[int] | list[str], *rest: float, c: Open = 1, **more: object) -> None:
    """Have parameters of every kind."""


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1, [1, "a"], 1, 2.5), {"c": 4.5, "d": 7}, ""),
        ((1, ()), {}, ""),
        ((1,), {"b": []}, ""),
        ((1,), {}, "example() missing 1 required positional argument: 'b'"),
        ((), {"a": 1, "b": []}, "example() missing 1 required positional argument: 'a'"),
        ((1, [1.5]), {}, "b[0] must be a whole number or a string, not 1.5"),
        ((1, [], 2, "x"), {}, "rest[1] must be a real number, not 'x'"),
        ((1, []), {"c": 0}, "c must be above 0, not 0"),
        ((1, []), {"c": 5.0}, "c must be below 5, not 5.0"),
        ((1, []), {"c": 1j}, "c must be a real number, not 1j"),
    ],
)
def test_parameters_of_every_kind(
    args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    found = Contract("a.tasks.example", contract(example)["parameters"])

    if words:
        with pytest.raises(REFUSALS) as refused:
            found.check(args, kwargs)
        assert str(refused.value) == words
    else:
        found.check(args, kwargs)
    if not kwargs:
        errors = found.errors([args, args])
        assert [*map(str, errors.values())] == [words] * 2 * bool(words)


@pytest.mark.parametrize(
    ("annotation", "described"),
    [
        (int, {"type": "int"}),
        (type(None), {"type": "None"}),
        (bool | None, {"type": "bool | None"}),
        (Optional[str], {"type": "str | None"}),  # noqa: UP045
        (int | float | complex, {"type": "complex"}),
        (tuple[int, str], {"type": "list", "items": {"type": "int | str"}}),
        (tuple[int, ...], {"type": "list", "items": {"type": "int"}}),
        (tuple, {"type": "list"}),
        (list[Any] | list[int], {"type": "list"}),
        (dict[str, int], {"type": "dict"}),
        (Any, {}),
        (int | np.ndarray[Any, Any], {}),
        (Annotated[int, "a size", Meta(ge=1, le=9)], {"type": "int", "ge": 1, "le": 9}),
        (Annotated[int, Meta(ge=1)] | None, {"type": "int | None", "ge": 1}),
        (Annotated[int | None, Meta(ge=1)], {"type": "int | None", "ge": 1}),
        (Annotated[int, Meta(ge=1)] | float, {"type": "float"}),
        (Annotated[str, Meta(min_length=1)], {"type": "str"}),
        (list[Annotated[int, Meta(ge=1)]], {"type": "list", "items": {"type": "int", "ge": 1}}),
    ],
    ids=repr,
)
def test_an_annotation_is_described(annotation: Any, described: dict[str, Any]) -> None:
    assert describe(annotation) == described


def test_a_parameter_whose_default_is_none_accepts_none() -> None:
    def function(n: int = None, *, tag: "str" = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        """Do nothing."""

    described = contract(function)["parameters"]

    assert [each["type"] for each in described] == ["int | None", "str | None"]


@pytest.mark.parametrize("rows", [[(nan,), (-5,)], [(-5,), (nan,)], [(1,), (nan,), (-5,)]])
def test_a_nan_hides_no_bound(rows: list[tuple[float]]) -> None:
    n = {"name": "n", "kind": "POSITIONAL_ONLY", "required": True, "type": "float", "ge": 0}
    found = Contract("task", [n])

    assert [*found.errors(rows)] == [rows.index((-5,))]


# At the client ---------------------------------------------------------------------


@pytest.fixture
def client() -> Any:
    """A client whose broker does not answer: nothing may be sent."""
    return Client("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0")


def test_wrong_arguments_fail_without_a_round_trip(client: Any) -> None:
    task = "factorial.tasks.factorial"
    calls: list[Callable[[], object]] = [
        lambda: client.call(task, "two"),
        lambda: client.submit(task, "two"),
        lambda: client.submit_many(task, [(1,), ("two",)]),
        lambda: client.tasks.factorial.factorial("two"),
        lambda: client.call(client.signature(task, "two").set(priority="high")),
        lambda: client.submit(client.signature(task), "two"),
        lambda: client.submit(dict(client.signature(task, n="two"))),
    ]

    for call in calls:
        with pytest.raises(TypeError, match=r"^n must be a whole number, not 'two'$"):
            call()


def test_jobs_of_other_queues_and_later_jobs_are_not_checked(client: Any) -> None:
    task = "factorial.tasks.factorial"
    wrong = client.signature(task, "two")

    contracts.check_signature(wrong.clone().set(queue="add"), (), {})
    contracts.check_signature(client.signature(task, 1) | client.signature(task, 1, 2), (), {})
    contracts.check_signature(client.signature(task, 1).set(immutable=True), ("two",), {})
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        contracts.check_signature(client.signature(task, 1), (2,), {})
