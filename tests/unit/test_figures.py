"""A figure: its ratio and bound, its table and its file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.figures import Figure, Goal, Measured, check_writable, missed, percentile, table, write
from bench.values import WrongValue, check

KEYS = {"name", "unit", "ours", "yardstick", "ratio", "bound", "met"}


def figure(ours: float, yardstick: float = 2.0, bound: float = 1.5) -> Figure:
    return Figure("some work", "ms", Measured.exactly(ours), Measured.exactly(yardstick), bound)


def text(*figures: Figure) -> str:
    console = Console(width=100)
    with console.capture() as shown:
        console.print(table(figures))
    return shown.get()


@pytest.mark.parametrize(
    ("ours", "ratio", "met"), [(2.0, 1.0, True), (3.0, 1.5, True), (3.01, 1.505, False)]
)
def test_a_bound_is_met_up_to_its_ratio(ours: float, ratio: float, met: bool) -> None:
    assert figure(ours).ratio == pytest.approx(ratio)
    assert figure(ours).met is met


@pytest.mark.parametrize(
    ("goal", "ours", "ratio", "met"),
    [
        (Goal.TIMES_AS_MUCH, 3.0, 1.5, True),
        (Goal.TIMES_AS_MUCH, 2.98, 1.49, False),
        (Goal.TIMES_LESS, 1.0, 2.0, True),
        (Goal.TIMES_LESS, 4.0, 0.5, False),
    ],
)
def test_a_bound_may_be_one_to_reach(goal: Goal, ours: float, ratio: float, met: bool) -> None:
    reached = figure(ours)._replace(goal=goal)

    assert reached.ratio == pytest.approx(ratio)
    assert reached.met is met
    assert reached.asked == "≥ 1.5"
    assert figure(ours).asked == "≤ 1.5"


def test_several_measurements_give_their_median_and_how_far_they_spread() -> None:
    assert Measured.median([3.0, 9.0, 1.0]) == (3.0, 1.0, 9.0)


def test_the_percentile_of_rounds_is_that_of_all_their_samples() -> None:
    rounds = [[float(n) for n in range(1, 51)], [float(n) for n in range(51, 101)]]

    assert Measured.p99(rounds) == (99.0, 50.0, 100.0)


@pytest.mark.parametrize(("percent", "sample"), [(0, 1), (50, 2), (51, 3), (99, 4), (100, 4)])
def test_a_percentile_is_one_of_the_samples(percent: float, sample: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == sample


def test_the_table_shows_values_spreads_and_what_is_missed() -> None:
    good = Figure("good", "ms", Measured(1.0, 0.5, 1.25), Measured.exactly(1.0), 1.5)
    shown = text(good, figure(4.0))

    for words in ("good", "0.5 … 1.2", "2.00", "yes", "some work", "no"):
        assert words in shown
    assert "≤ 1.5" in shown
    assert missed([good, figure(4.0)]) == "bounds missed: some work"
    assert missed([good]) == "all bounds are met"


def test_the_file_has_an_object_a_figure(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text("the old content")
    write([figure(4.0), figure(1.0)], file)
    written = json.loads(file.read_text())

    assert [set(each) for each in written] == [KEYS, KEYS]
    assert written[0] == {
        "name": "some work",
        "unit": "ms",
        "ours": 4.0,
        "yardstick": 2.0,
        "ratio": 2.0,
        "bound": 1.5,
        "met": False,
    }
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text("the old content")
    unwritable: Any = object()

    with pytest.raises(TypeError):
        write([figure(1.0)._replace(unit=unwritable)], file)

    assert file.read_text() == "the old content"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "figures.json", tmp_path / "link"
    link.symlink_to(file)
    write([figure(1.0)], link)

    assert link.is_symlink()
    assert len(json.loads(file.read_text())) == 1


@pytest.mark.parametrize("name", ["", "nowhere/figures.json", "x" * 300])
def test_an_unwritable_path_is_found_beforehand(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"Errno|is not a file"):
        check_writable(tmp_path / name)

    assert list(tmp_path.iterdir()) == []


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(OSError, match="'/dev/null' is not a file"):
        check_writable(Path("/dev/null"))


def test_the_check_of_a_path_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "figures.json")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10, 11),
        (np.ones((2, 2)), np.zeros((2, 2))),
        (np.ones((1, 1)), np.ones((2, 2))),
        (None, 10),
    ],
)
def test_a_wrong_value_is_an_error(value: Any, expected: Any) -> None:
    with pytest.raises(WrongValue, match="add gave a wrong value"):
        check("add", value, expected)


def test_a_matrix_may_differ_in_its_last_digits() -> None:
    check("mat_mul", np.array([[0.1 + 0.2]]), np.array([[0.3]]))
