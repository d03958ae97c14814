"""The comparison with peers: the figures of its samples, its page and its plots."""

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench import turn
from bench.chart import LABELS, VALUES, WIDTH, Group, bars
from bench.comparison import figures, rows
from bench.curve import Curve, depths
from bench.figures import Figure, Measured
from bench.load import Load
from bench.peers.__main__ import _samples
from bench.peers.protocol import check
from bench.progress import Progress
from bench.report import page, write_report
from bench.run import Run, machine
from bench.systems import NAMES, SYSTEMS, System, named
from bench.turn import Cpu, Sample, Sizes
from cluster.errors import ClusterError
from tests.repo.repo import ROOT, imports

SVG = "{http://www.w3.org/2000/svg}"


def sample(system: str, rate: float, **other: Any) -> Sample:
    """Return the sample of a system that does `rate` jobs a second by each way."""
    ms = 1000 / rate
    fields = {
        "submit": rate,
        "each": rate,
        "submit_bulk": rate,
        "bulk": rate,
        "trips": [ms, ms, ms],
        "loaded": [2 * ms, 2 * ms, 2 * ms],
        "load": rate / 2,
        "cpu_each": Cpu(ms, ms, ms),
        "cpu_bulk": Cpu(ms, ms, ms),
        "memory": 50.0,
        "memory_kind": "PSS",
        "calls": 0.0,
        "probes": [10.0, 11.0],
        **other,
    }
    return Sample(system=system, **fields)


SAMPLES = [
    sample("ours", 12_000, calls=240_000.0),
    sample("celery-prefork", 800),
    sample("celery-solo", 1000),
    sample("dramatiq", 3000, bulk=2500.0),
    sample("huey", 2900),
]


def run(
    samples: list[Sample],
    others: float | None = 0.02,
    appendfsync: str = "always",
    **failed: str,
) -> Run:
    systems = {each.system for each in samples}
    return Run(
        start="2026-11-21 12:00 UTC",
        samples=samples,
        sizes=Sizes(jobs=5000, seconds=1.2, trips=500, calls=200_000),
        rounds=5,
        appendfsync=appendfsync,
        server="valkey 9.1.2",
        machine=machine(),
        versions={system: {"python": "3.11.9"} for system in systems},
        others=others,
        failed=failed,
    )


def test_each_figure_is_against_the_best_of_those_that_were_measured() -> None:
    found = {figure.name: figure for figure in figures(rows(SAMPLES), "always")}

    ratios = {name: figure.ratio for name, figure in found.items()}
    assert ratios == pytest.approx(
        {
            "end to end, bulk, over the best peer's best way (dramatiq, one by one)": 4,
            "end to end, one by one, over the best peer (dramatiq)": 4,
            "round trip p50, idle, of the best peer (dramatiq) over ours": 4,
            "end to end, bulk, over stock Celery's best (Celery, solo, bulk)": 12,
            "end to end, bulk, over stock (Celery, prefork, bulk)": 15,
            "submit, one by one, over stock (Celery, solo)": 12,
            "worker CPU a job, bulk, of stock (Celery, prefork) over ours": 15,
            "calls by map, over the best peer's best way (dramatiq, one by one)": 80,
        }
    )
    assert [figure.bound for figure in found.values()] == [5, 40, 1.3, 2, 10, 10, 2.5, 15]
    assert sum(figure.met for figure in found.values()) == 7  # 4 is less than 5


def test_a_peer_that_is_ahead_is_a_bound_missed() -> None:
    ahead = figures(rows([sample("ours", 1000), sample("celery-prefork", 2000)]), "everysec")

    assert [figure.met for figure in ahead] == [False] * 6
    assert {figure.ratio for figure in ahead} == {0.5}


@pytest.mark.parametrize(
    ("left", "count"), [(["ours"], 0), (["ours", "dramatiq"], 4), (["dramatiq", "huey"], 0)]
)
def test_figures_against_systems_left_out_are_not_there(left: list[str], count: int) -> None:
    kept = [each for each in SAMPLES if each.system in left]

    assert len(figures(rows(kept), "no")) == count


def test_a_row_is_the_median_of_its_rounds() -> None:
    (row,) = rows([sample("huey", rate) for rate in (100, 900, 300)])

    assert row.each == (300, 100, 900)
    assert row.trip.value == pytest.approx(1000 / 300)


def test_a_run_is_read_as_it_was_written() -> None:
    done = run(SAMPLES)
    read = Run.from_json(json.loads(json.dumps(done.as_json())))

    assert read.samples == done.samples
    assert page([read], None) == page([done], None)


def test_the_page_says_what_was_measured_and_on_what(tmp_path: Path) -> None:
    curve = Curve({"1": [10.0], "2": [20.0, 30.0]}, {"1000": [5.0]})
    slow = [sample("ours", 2000), sample("huey", 1000, submit=4000.0, memory=20.0)]
    seven = Measured.exactly(7)
    fleet = [Figure("of a fleet", "MB", seven, seven, 1.0)]
    write_report([run(SAMPLES), run(slow, 0.01, "everysec")], curve, fleet, tmp_path)
    text = (tmp_path / "performance.md").read_text()

    assert {file.name for file in tmp_path.iterdir()} == {
        "performance.md",
        *(f"performance-{name}.svg" for name in ("workers", "depth")),
        *(
            f"performance-{name}-{setting}.svg"
            for name in ("throughput", "latency")
            for setting in ("always", "everysec")
        ),
    }
    for words in (
        "| 12,000 jobs/s | 3,000 jobs/s | **4.00** | ≥ 1.3 | yes |",
        "12:00 UTC",
        "| 2,000 jobs/s | 1,000 jobs/s | **2.00** | ≥ 2 | yes |",
        "With `appendfsync always`, other programs took 2% of the cores",
        "With `appendfsync everysec`, other programs took 1% of the cores",
        "25 (20 … 30)",
        "Ahead of this cluster: huey at submitting one by one (4,000 jobs/s beside 2,000)",
        "huey at memory of an idle worker (20 MB beside 50).",
        "valkey 9.1.2",
        "At least once",
        "acknowledged late",
        "python 3.11.9",
        "](performance-depth.svg)",
        "| of a fleet | 7 MB | 7 MB | **1.00** | ≤ 1 | yes |",
    ):
        assert words in text, words
    assert "do not hold" not in text


def test_a_page_from_a_machine_that_became_slower_says_so() -> None:
    slower = sample("huey", 2900, probes=[11.0, 16.0])
    text = page([run([*SAMPLES[:-1], slower])], None)
    assert "took 10 to 14 ms, on average around a system's turns: the machine's speed" in text


@pytest.mark.parametrize(
    ("others", "words"), [(0.3, "the figures do not hold"), (None, "is not known")]
)
def test_a_page_from_a_busy_machine_says_so(others: float | None, words: str) -> None:
    assert words in page([run(SAMPLES, others)], None)


def test_a_page_says_which_peer_is_left_out_and_why() -> None:
    text = page([run(SAMPLES, rq="rq's client: a sum is wrong or missing")], None)

    assert text.count("rq failed and is left out: rq's client: a sum is wrong or missing.") == 1


def test_a_figure_s_name_says_what_it_holds_for() -> None:
    names = [figure.name for figure in run(SAMPLES, appendfsync="everysec").named_figures]

    assert "submit, one by one, over stock (Celery, solo), appendfsync everysec" in names


def test_a_peer_that_fails_has_no_sample_and_no_more_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken = []

    def take(system: System, *_: Any) -> Sample:
        taken.append(system.name)
        if system.name == "huey":
            raise ClusterError("huey's client ended")
        return sample(system.name, 1000)

    monkeypatch.setattr(turn, "take", take)
    failed: dict[str, str] = {}
    server: Any = None
    systems = named("ours,huey,rq")
    record = Progress("test", tmp_path)
    done = list(_samples(systems, server, Sizes(1, 1, 1, 0), 2, Load(), failed, record))

    assert taken == ["ours", "huey", "rq", "rq", "ours"]
    assert [each.system for each in done] == ["ours", "rq", "rq", "ours"]
    assert failed == {"huey": "huey's client ended"}


def test_a_failure_of_this_cluster_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def take(*_: Any) -> Sample:
        raise ClusterError("a sum is wrong")

    monkeypatch.setattr(turn, "take", take)
    server: Any = None
    record = Progress("test", tmp_path)
    with pytest.raises(ClusterError, match="a sum is wrong"):
        list(_samples(named("ours"), server, Sizes(1, 1, 1, 0), 1, Load(), {}, record))


def test_a_bar_is_as_long_as_its_value_is_large() -> None:
    chart = ET.fromstring(  # noqa: S314 - our own
        bars("A & B", "jobs/s", ("one", "two"), [Group("<a>", (10, 20)), Group("b", (40, 0))])
    )
    lengths = [float(rect.attrib["width"]) for rect in chart.iter(f"{SVG}rect")][2:]
    texts = [text.text for text in chart.iter(f"{SVG}text")]

    most = WIDTH - LABELS - VALUES
    assert lengths == pytest.approx([most / 4, most / 2, most, 1], abs=0.1)
    assert {"A & B (jobs/s)", "<a>", "10", "20", "40"} <= set(texts)
    assert "prefers-color-scheme: dark" in ET.tostring(chart, "unicode")


def test_a_queue_grows_by_tens() -> None:
    assert list(depths(100_000)) == [1000, 10_000, 100_000]


def test_systems_are_chosen_by_name() -> None:
    assert [system.name for system in named("dramatiq, ours")] == ["ours", "dramatiq"]
    with pytest.raises(ClusterError, match="'sidekiq' is not one of ours, celery-prefork"):
        named("ours,sidekiq")


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_a_peer_has_its_client_and_every_package_of_it_is_pinned(system: Any) -> None:
    folder = ROOT / "bench" / "peers" / system.folder
    assert (folder / "client.py").exists()
    requirements = folder / "requirements.txt"
    assert requirements.exists() is system.needs_environment
    pinned = ROOT / "constraints.txt"
    if system.needs_environment:
        pinned = requirements
        for line in pinned.read_text().splitlines():
            assert line.startswith("#") or "==" in line, line
    names = {line.split("==")[0].split("[")[0] for line in pinned.read_text().splitlines()}
    assert set(system.packages) <= names


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_a_peer_sees_nothing_of_ours_but_what_its_clients_share(system: Any) -> None:
    if not system.is_ours:
        for file in (ROOT / "bench" / "peers" / system.folder).glob("*.py"):
            assert not set(imports(file)) & {
                "callers",
                "celeryconfig",
                "celery_streams",
                "cluster",
            }, file
            assert not re.search(r"from bench(?!\.peers\.)", file.read_text()), file
    shared = set(imports(ROOT / "bench" / "peers" / "protocol.py"))
    assert shared <= sys.stdlib_module_names


@pytest.mark.parametrize("values", [[3, 8], [3], [3, None], []])
def test_a_sum_that_is_wrong_or_missing_is_an_error(values: list[Any]) -> None:
    check([3, 7], [(1, 2), (3, 4)])
    with pytest.raises(ValueError, match="wrong or missing"):
        check(values, [(1, 2), (3, 4)])
