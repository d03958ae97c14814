"""Bundles: what they return, and how many calls each is to have."""

from math import inf, nan
from typing import Any

import pytest

from callers import bundling
from callers.bundling import FIRST_CALLS, FIRST_SECONDS, OPEN, Bundling, Unit
from celery_streams import bundles
from celery_streams.bundles import MAX_CALLS, Outcome
from celery_streams.errors import Unreadable


def test_an_outcome_is_padded_to_all_calls() -> None:
    stored = {"values": [1, None], "own": [1, 2, 3], "seconds": 0.5}

    assert bundles.outcome(stored, 4) == Outcome([1, None, None, None], [1, 2, 3], 0.5)


@pytest.mark.parametrize(
    "stored",
    [
        *(None, 5, "x", [], {}, ValueError("wrong"), {"values": [], "own": []}),
        {"values": [1, 2, 3], "own": [], "seconds": 0},
        {"values": [1], "own": [], "seconds": 0},
        {"values": [1, 2], "own": [2], "seconds": 0},
        {"values": [1, 2], "own": [-1], "seconds": 0},
        {"values": [1, 2], "own": [1.0], "seconds": 0},
        {"values": [1, 2], "own": [[]], "seconds": 0},
        {"values": [1, 2], "own": None, "seconds": 0},
        {"values": 7, "own": [], "seconds": 0},
        *({"values": [1, 2], "own": [], "seconds": each} for each in (-1, nan, inf, "1", None)),
    ],
)
def test_a_malformed_outcome_is_unreadable(stored: Any) -> None:
    with pytest.raises(Unreadable, match="the outcome of a bundle is "):
        bundles.outcome(stored, 2)


def test_an_id_names_the_bundle_and_the_position() -> None:
    unit = Unit("a-b", 3, inf)
    ids = [unit.call_id(position) for position in range(3)]

    assert ids == ["a-b-0", "a-b-1", "a-b-2"]
    assert [*map(unit.position, ids)] == [0, 1, 2]
    assert {*map(bundles.bundle_of, ids)} == {"a-b"}
    others = ("a-b-3", "a-b-x", "a-b-" + "9" * 5000, "a-b-²", "a-b")
    assert [*map(unit.position, others)] == [None] * 5
    assert unit.open_jobs() == [*ids, "a-b"]


def test_a_call_alone_is_a_job_of_the_same_id() -> None:
    unit = Unit("a-b", 1, inf)

    assert (unit.call_id(0), unit.position("a-b"), unit.open_jobs()) == ("a-b", 0, ["a-b"])


def test_what_ended_before_its_bundle_stays() -> None:
    unit = Unit("id", 4, inf)
    unit.outcomes[2] = "ended"

    assert unit.end([1, None, None, 4], [1, 2]) == ["id-1"]
    assert unit.outcomes == [1, OPEN, "ended", 4]


def of(calls: int, seconds: float, own: int = 0) -> Outcome:
    return Outcome([0] * calls, [*range(own)], seconds)


def test_bundles_grow_with_quick_calls_and_shrink_with_slow_ones() -> None:
    found = Bundling(10_000)
    assert found.parts([1, 2, 3]) == [[1, 2, 3]]  # to learn from
    sizes = []
    for _ in range(8):
        found.ended(of(found.calls, found.calls * 1e-6))
        sizes.append(found.calls)
    assert sizes == [2, 4, 8, 16, 32, 64, 128, 256]
    assert [*map(len, found.parts([0] * 600))] == [256, 256, 88]
    for _ in range(3):
        found.ended(of(found.calls, found.calls * 1e-6))
    assert found.calls == MAX_CALLS
    found.ended(of(100, 0.1))  # a millisecond each
    assert found.calls == 10
    found.ended(of(10, 5))
    assert found.calls == 1


def test_what_has_to_be_jobs_is_bundled_no_more() -> None:
    found = Bundling(10_000)
    found.ended(of(4, 0.001))
    assert found.calls == 8
    found.ended(of(8, 0.001, own=8))
    assert found.calls == 1
    found.ended(of(1, 1e-6))
    assert found.calls == 1


def test_a_bundle_that_did_not_fit_is_halved() -> None:
    found = Bundling(10_000)
    found.ended(of(4, 1e-6))
    found.too_large()

    assert found.calls == 4


def test_a_caller_waits_for_the_first_bundle_but_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(bundling, "monotonic", lambda: now)
    found = Bundling(10_000)
    assert not found.waits(FIRST_CALLS)
    found.parts([1])
    assert not found.waits(FIRST_CALLS - 1)
    assert found.waits(FIRST_CALLS)
    now += FIRST_SECONDS + 0.001
    assert not found.waits(FIRST_CALLS)
    assert found.waits_until == inf


@pytest.mark.parametrize("window", [1, 5, 31])
def test_a_small_window_has_no_bundles(window: int) -> None:
    found = Bundling(window)
    found.ended(of(1, 1e-6))

    assert found.parts([1, 2]) == [[1], [2]]
    assert not found.waits(100)
