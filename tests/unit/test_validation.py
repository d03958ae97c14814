"""The checks of a message before a worker sees it."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from kombu.utils.json import dumps

from celery_streams.errors import Malformed
from celery_streams.transport.validation import (
    MAX_DEPTH,
    check,
    check_call,
    check_parsed,
    check_task,
)
from tests.support.messages import CALL, JOB, message
from tests.support.seed import chance

SIGNATURE = {"task": "add.tasks.add", "args": [], "kwargs": {}, "options": {}}


def without(name: str, part: str) -> dict[str, Any]:
    """Return the envelope of a task without one of its headers or properties."""
    envelope = message()
    del envelope[part][name]
    return envelope


def raw(envelope: Any) -> bytes:
    return json.dumps(envelope).encode()


def test_a_task_is_returned_as_it_is() -> None:
    assert check(raw(message())) == json.loads(raw(message()))


@pytest.mark.parametrize(
    "headers",
    [
        {"eta": "2026-11-21T18:00:00+00:00", "expires": "2026-11-22T18:00:00.5Z"},
        {"timelimit": [None, None]},
        {"timelimit": [10, 9.5]},
        {"timelimit": None},
        {"retries": 7, "group": "a-group", "stamped_headers": ["x"], "stamps": {"x": 1}},
        {"stamped_headers": None, "stamps": None, "unheard": {"of": []}},
        {"shadow": "another", "ignore_result": True, "priority": "high"},
    ],
)
def test_what_celery_takes_is_good(headers: dict[str, Any]) -> None:
    check(raw(message(headers)))


def test_what_other_producers_leave_out_is_not_missed() -> None:
    check(raw(message() | {"headers": {"task": "add.tasks.add", "id": JOB}}))


def test_a_message_that_is_no_task_needs_only_to_be_an_envelope() -> None:
    strange = message() | {"headers": {"id": 5, "eta": "soon", "timelimit": "abc"}, "body": ""}

    assert check(raw(strange)) == strange


@pytest.mark.parametrize("headers", [None, "absent"])
def test_a_message_of_protocol_1_has_no_headers(headers: Any) -> None:
    old = message() | {"headers": headers}
    if headers:
        del old["headers"]

    assert check(raw(old))["headers"] == {}


def test_values_that_kombu_marks_are_what_they_stand_for() -> None:
    marked = dumps(message() | {"extra": UUID(int=7)}).encode()

    assert check(marked)["extra"] == UUID(int=7)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "not JSON"),
        (b"\x80\x04\x95", "not JSON: 'utf-8' codec"),
        (b"{", "not JSON"),
        (b'{"headers": {"id": "add-8d3f"', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": {"__type__": "bogus", "__value__": 1}}', "not JSON: .*Unsupported type"),
        (b'{"a": {"__type__": [], "__value__": 1}}', "not JSON"),
        (b"9" * 5000, "not JSON: Exceeds the limit"),
        (b"[]", "not an envelope but a list"),
        (b"5", "not an envelope but a number"),
        (b"null", "not an envelope but null"),
        (b'"text"', "not an envelope but a string"),
        (b"{}", "properties are not a mapping but null"),
    ],
)
def test_an_invalid_envelope_is_refused(given: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        check(given)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"properties": []}, "properties are not a mapping but a list"),
        ({"headers": ["task"]}, "headers are not a mapping but a list"),
        ({"headers": "task"}, "headers are not a mapping but a string"),
        ({"body": None}, "body is not a string but null"),
        ({"body": 5}, "body is not a string but a number"),
        ({"body": {"a": 1}}, "body is not a string but an object"),
        ({"body": "abc"}, "body is not base64: Incorrect padding"),
        ({"body": "öl=="}, "body is not base64"),
    ],
)
def test_parts_that_are_not_what_they_should_be_are_refused(
    parts: dict[str, Any], words: str
) -> None:
    with pytest.raises(Malformed, match=words):
        check(raw(message() | parts))


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"delivery_tag": None}, "no delivery_tag"),
        ({"delivery_tag": []}, "no delivery_tag"),
        ({"delivery_info": None}, "no delivery_info"),
        ({"delivery_info": "add"}, "no delivery_info"),
        ({"body_encoding": "gzip"}, "body_encoding is unknown: 'gzip'"),
        ({"body_encoding": 5}, "body_encoding is unknown: 5"),
    ],
)
def test_properties_that_are_not_what_they_should_be_are_refused(
    properties: dict[str, Any], words: str
) -> None:
    with pytest.raises(Malformed, match=words) as raised:
        check(raw(message(properties=properties)))

    assert (raised.value.job_id, raised.value.reply_to) == (JOB, "caller")


@pytest.mark.parametrize("name", ["delivery_tag", "delivery_info"])
def test_properties_that_are_missing_are_refused(name: str) -> None:
    with pytest.raises(Malformed, match=f"no {name}"):
        check(raw(without(name, "properties")))


NO_CALLS: list[Any] = [None, 5, "args", "", [], {}, [[], {}], [1, 2, 3, 4], {"a": 1}]
NO_NAMES: list[Any] = [None, "", 5, [], {}, "x" * 2000, "\ud800"]
NO_TIMES: list[Any] = ["", "soon", 5, 0, True, [], {}, "9999-12-31T23:59:59-12:00"]
NO_LIMITS: list[Any] = ["abc", 5, [1], [1, 2, 3], {"a": 1}, ["1", "2"], [-1, None], [True, None]]

BAD_HEADERS: dict[str, list[Any]] = {
    "id": NO_NAMES,
    "task": NO_NAMES,
    "eta": NO_TIMES,
    "expires": NO_TIMES,
    "timelimit": [*NO_LIMITS, [float("nan"), 1], [None, float("inf")], [None, []], [None, "soon"]],
    "retries": [None, "1", 1.5, -1, [], True],
    "group": [5, [], {}, "\ud800"],
    "stamped_headers": [5, "abc", {}, [5]],
    "stamps": [5, "abc", []],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_HEADERS.items() for value in values]
)
def test_headers_that_celery_cannot_take_are_refused(name: str, value: Any) -> None:
    with pytest.raises(Malformed, match=name) as raised:
        check(raw(message({name: value})))

    # The correlation id is also the job's.
    assert (raised.value.job_id, raised.value.reply_to) == (JOB, "caller")
    assert len(raised.value.reason.splitlines()) == 1
    assert len(raised.value.reason) < 200


@pytest.mark.parametrize("name", ["id", "task"])
def test_a_task_without_an_id_is_refused_as_one_without_a_name(name: str) -> None:
    headers = without(name, "headers")["headers"]

    with pytest.raises(Malformed, match=f"task's {name} is not a name: None"):
        check_task(headers)


def test_headers_that_pickle_could_not_take_are_refused() -> None:
    deep: Any = 0
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]

    with pytest.raises(Malformed, match="nested too deeply") as raised:
        check(raw(message({"unheard": deep})))
    assert raised.value.job_id == JOB
    check(raw(message({"unheard": [[]] * MAX_DEPTH})))  # many, but not nested


@pytest.mark.parametrize(
    ("given", "job_id", "reply_to"),
    [
        (b'{"headers": {"id": "add-8d3f", "task": "add.ta', "add-8d3f", None),
        (b'{"properties": {"reply_to": "caller"}, "headers": {"id" :"add-8d3f"', JOB, "caller"),
        (b'{"headers": {"id": ""', None, None),
        (b'{"headers": {"id": "' + b"x" * 5000 + b'"', None, None),
        (b'{"headers": {"argsrepr": "\\"id\\": \\"no\\""', None, None),
    ],
)
def test_the_sender_of_a_message_in_pieces_is_known_if_it_can_be(
    given: bytes, job_id: str | None, reply_to: str | None
) -> None:
    with pytest.raises(Malformed) as raised:
        check(given)

    assert (raised.value.job_id, raised.value.reply_to) == (job_id, reply_to)


@pytest.mark.parametrize("payload", NO_CALLS)
def test_an_invalid_call_is_refused(payload: Any) -> None:
    with pytest.raises(Malformed, match=r"not \[args, kwargs, embed\]"):
        check_call(payload, message()["headers"])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ([5, {}, {}], "args are not a list but a number"),
        (["args", {}, {}], "args are not a list but a string"),
        ([[], [], {}], "kwargs are not a mapping but a list"),
        ([[], None, {}], "kwargs are not a mapping but null"),
        ([[], {}, []], "embedded signatures are not a mapping but a list"),
        ([[], {}, {"callbacks": 5}], "'callbacks' is not a list of signatures: 5"),
        ([[], {}, {"errbacks": ["x"]}], "'errbacks' is not a list"),
        ([[], {}, {"chain": [{}]}], "'chain' is not a list"),
        ([[], {}, {"chain": {"task": "x"}}], "'chain' is not a list"),
        ([[], {}, {"chord": [SIGNATURE]}], "'chord' is not a signature"),
        ({"args": 5}, "args are not a list but a number"),
        ({"args": [], "kwargs": 5}, "kwargs are not a mapping but a number"),
        ({"args": [], "callbacks": "x"}, "'callbacks' is not a list"),
    ],
)
def test_a_call_with_parts_that_a_pool_process_cannot_take_is_refused(
    payload: Any, words: str
) -> None:
    with pytest.raises(Malformed, match=words):
        check_call(payload, message()["headers"])


@pytest.mark.parametrize(
    "payload",
    [
        CALL,
        tuple(CALL),
        [[], {}, None],
        [(4, 6), {"x": 1}, {"callbacks": [SIGNATURE], "chord": SIGNATURE, "unheard": 5}],
        {"args": [4, 6]},
    ],
)
def test_a_body_that_celery_takes_is_good(payload: Any) -> None:
    check_call(payload, message()["headers"])


def test_a_task_of_protocol_1_is_checked_in_its_body() -> None:
    old = {"task": "add.tasks.add", "id": JOB, "args": [4, 6], "kwargs": {}}
    check_call(old, {})
    check_call({"task": "add.tasks.add", "id": JOB}, {})

    for bad in ({"id": None}, {"timelimit": "abc"}, {"retries": "x"}, {"eta": 5}, {"args": 5}):
        with pytest.raises(Malformed, match=next(iter(bad))):
            check_call(old | bad, {})


def test_random_bytes_are_refused_and_nothing_else_happens() -> None:
    random = chance()
    for _ in range(3000):
        with pytest.raises(Malformed):
            check(random.randbytes(random.randrange(1, 200)))


def test_a_good_message_with_bytes_changed_is_good_or_malformed() -> None:
    random = chance()
    good = raw(message())
    for _ in range(3000):
        changed = bytearray(good)
        for _ in range(random.randrange(1, 5)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        with suppress(Malformed):
            envelope = check(bytes(changed))
            assert isinstance(envelope["headers"], dict)
            check_parsed(envelope)


HALF = "half \ud800"


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    """Return a mapping of one name for each of its values."""
    return [{name: value} for value in values]


@pytest.mark.parametrize(
    "headers",
    [
        *each("timelimit", [10**400, None], [None, 1e10], [None, -(10**400)]),
        *each("retries", 10**400, 10**7, 1e3, "1"),
        *each("shadow", "x" * 10**6, {"a": 1}, HALF, 7),
        *each("root_id", {"a": 1}, ["x"], "x" * 1025, 7),
        *each("parent_id", {}, 10**400, HALF),
        *each("group", "x" * 1025, HALF, 7),
        *each("group_index", "0", 10**400, 0.5, [0]),
        *each("argsrepr", "x" * 10**6, 7),
        *each("kwargsrepr", {"a": 1}, ["x"]),
        *each("origin", 7, "x" * 1025),
        *each("replaced_task_nesting", "x", 10**400),
        *each("eta", "9" * 5000, "2026-01-01T00:00:00" + "0" * 10**5),
        {"stamped_headers": ["x" * 1025]},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_numbers_and_names_of_a_task_are_bounded(headers: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=r"^the task's ") as raised:
        check(raw(message(headers)))

    assert len(str(raised.value)) < 250
    assert raised.value.job_id == JOB


@pytest.mark.parametrize(
    "properties",
    [
        *each("priority", float("inf"), float("nan"), 10**400, "x" * 1025, []),
        *each("reply_to", 7, HALF, "x" * 1025, ["x"], {}),
        *each("correlation_id", 7, {"a": 1}, HALF),
        *each("delivery_tag", 10**400, "x" * 1025, HALF, []),
        *each("expiration", [], 10**400),
        {"delivery_info": {"exchange": {}, "routing_key": "add"}},
        {"delivery_info": {"exchange": "", "routing_key": ["add"]}},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_numbers_and_names_of_a_message_are_bounded(properties: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=r"^the message's |no delivery_tag") as raised:
        check(raw(message((), properties)))

    assert len(str(raised.value)) < 250


def test_a_message_is_not_parsed_when_it_is_too_large() -> None:
    large = raw(message({"argsrepr": "x" * 1000}))

    with pytest.raises(
        Malformed, match=r"has \d+ bytes, more than 1000 \(max_message_bytes\)"
    ) as raised:
        check(large, 1000)
    assert (raised.value.job_id, raised.value.reply_to) == (JOB, "caller")


def test_whatever_a_check_does_not_expect_is_malformed() -> None:
    class Odd(datetime):
        @property
        def year(self) -> int:
            raise ZeroDivisionError

    envelope = message({"eta": Odd(2026, 11, 21, tzinfo=UTC)})
    with pytest.raises(Malformed, match="cannot be checked"):
        check_parsed(envelope)
