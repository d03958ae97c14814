"""A figure: its ratio, its bound and its file; and what makes it invalid."""

import numpy as np
import pytest

from bench.figures import Figure, Goal, Measured, figure_table, missed
from bench.load import Load
from bench.values import WrongValue, check
from bench.work import Work, impossible


def figure(ours: float, yardstick: float = 2.0, goal: Goal = Goal.AT_MOST) -> Figure:
    return Figure("a", "ms", Measured.exactly(ours), Measured.exactly(yardstick), 1.5, goal)


@pytest.mark.parametrize(
    ("goal", "ours", "ratio", "met"),
    [
        (Goal.AT_MOST, 3.0, 1.5, True),
        (Goal.AT_MOST, 3.01, 1.505, False),
        (Goal.TIMES_AS_MUCH, 3.0, 1.5, True),
        (Goal.TIMES_AS_MUCH, 2.98, 1.49, False),
        (Goal.TIMES_LESS, 1.0, 2.0, True),
        (Goal.TIMES_LESS, 4.0, 0.5, False),
    ],
)
def test_a_bound_is_met_up_to_its_ratio(goal: Goal, ours: float, ratio: float, met: bool) -> None:
    made = figure(ours, goal=goal)

    assert made.ratio == pytest.approx(ratio)
    assert made.met is met
    assert made.asked == ("≤ 1.5" if goal is Goal.AT_MOST else "≥ 1.5")
    assert ("| yes |" in figure_table([made])) is met
    assert missed([made]) == ("all bounds are met" if met else "bounds missed: a")


def test_several_measurements_give_their_median_or_percentile_and_how_far_they_spread() -> None:
    assert str(Measured.median([3.0, 9000.0, 1.0])) == "3 (1 … 9,000)"
    rounds = [[float(n) for n in range(1, 51)], [float(n) for n in range(51, 101)]]
    assert Measured.p99(rounds) == (99.0, 50.0, 100.0)


def test_a_wrong_value_is_an_error() -> None:
    one = np.ones((1, 1))
    for value, expected in ((10, 11), (one, 2 * one), (one, np.ones((2, 2))), (None, 10)):
        with pytest.raises(WrongValue, match="add gave a wrong value"):
            check("add", value, expected)
    check("mat_mul", np.array([[0.1 + 0.2]]), np.array([[0.3]]))  # its last digits may differ


def test_a_busy_machine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda: 2)
    seen = Load()
    seen.seconds, seen.others = 10.0, 0.4
    assert seen.note("meanwhile") == "other programs took 2% of the cores meanwhile"
    seen.others = 11
    assert "took 55% of the cores meanwhile: the machine was busy, and the" in seen.note(
        "meanwhile"
    )


def test_what_counts_as_ours_is_not_the_others() -> None:
    seen = Load()
    assert seen.note() == "the load of other programs is not known"
    counted = iter([0.0, 1e6])
    with seen.watched(lambda: next(counted)):
        pass

    assert seen.others < -9e5


def test_less_time_than_the_work_alone_cannot_be() -> None:
    work = Work("some work", "a.task", (), list, 1.35)

    assert "is impossible" in impossible(work, figure(0.32, 1.0))[0]
    assert impossible(work, figure(1.0, 1.0)) == []
    assert impossible(work._replace(allowance=3.0), figure(0.9, 1.0)) == []
