"""The notes of a benchmark on a busy machine, and on impossible figures."""

from pathlib import Path

import pytest

from bench.figures import Figure, Measured
from bench.load import Load
from bench.work import Work, impossible


def load(share: float, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    seen = Load()
    seen.seconds, seen.others = 10.0, 20.0 * share
    (note,) = seen.notes()
    return note


def test_a_busy_machine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(0.02, monkeypatch) == (
        "other programs took 2% of the cores while the yardsticks ran"
    )
    assert "took 55% of the cores" in load(0.55, monkeypatch)
    assert "DO NOT HOLD" in load(0.55, monkeypatch)


def test_too_short_a_look_says_nothing_of_the_machine() -> None:
    assert Load().notes() == ["the load of other programs is not known"]


@pytest.mark.parametrize(
    ("ours", "allowance", "notes"), [(0.32, 0.0, 1), (1.0, 0.0, 0), (1.3, 0.0, 0), (0.9, 3.0, 0)]
)
def test_less_time_than_the_work_alone_cannot_be(ours: float, allowance: float, notes: int) -> None:
    work = Work("some work", "a.task", (), list, 1.35, allowance=allowance)
    figure = Figure("some work", "ms", Measured.exactly(ours), Measured.exactly(1.0), 1.35)

    assert len(impossible([work], [figure])) == notes


def test_the_share_is_none_if_it_was_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    seen = Load()

    assert seen.share is None
    seen.seconds, seen.others = 10.0, 5.0
    assert seen.share == pytest.approx(0.25)
    assert seen.notes("meanwhile")[0].startswith("other programs took 25% of the cores meanwhile")


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the machine's load is Linux's")
def test_what_counts_as_ours_is_not_the_others() -> None:
    seen = Load()
    counted = iter([0.0, 1e6])
    with seen.watched(lambda: next(counted)):
        pass

    assert seen.others < -9e5
