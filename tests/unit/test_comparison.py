"""The comparison with peers: the figures of its samples, and its page."""

import re
import sys
from typing import Any

import msgspec
import pytest

from bench import turn
from bench.compare import take_turns
from bench.comparison import Comparison, Run, figures, machine, rows
from bench.figures import Figure, Measured
from bench.load import Load, drift
from bench.page import PAGE, TEMPLATE, page
from bench.peers.protocol import check
from bench.systems import SYSTEMS, TITLES, System, named
from bench.turn import Sample, Sizes
from cluster.errors import ClusterError
from tests.support.repo import ROOT, imports

SIZES = Sizes(jobs=5000, seconds=1.2, trips=500, calls=200_000)


def sample(
    system: str, rate: float, probes: tuple[float, ...] = (10, 11), **other: float
) -> Sample:
    """Return the sample of a system that does `rate` jobs a second by each way."""
    ms = 1000 / rate
    rates = dict.fromkeys(("submit", "each", "submit_bulk", "bulk", "load"), rate)
    cpu = dict.fromkeys(("worker_cpu", "caller_cpu", "server_cpu"), ms)
    values = {**rates, **cpu, "memory": 50.0, **other}
    return Sample(system, values, [ms] * 3, [2 * ms] * 3, [*probes])


SAMPLES = [
    sample("ours", 12_000, calls=240_000.0),
    sample("celery-prefork", 800),
    sample("celery-solo", 1000),
    sample("dramatiq", 3000, bulk=2500.0),
    sample("huey", 2900),
]


def run(samples: list[Sample], appendfsync: str = "always", **failed: str) -> Run:
    medians = rows(samples)
    return Run(
        start="2026-11-21 12:00 UTC",
        appendfsync=appendfsync,
        sizes=SIZES,
        rounds=5,
        note=f"quiet; {drift((each.system, each.probes) for each in samples)}",
        failed=failed,
        versions={name: {"python": "3.11.9"} for name in medians},
        machine=machine("valkey 9.1.2"),
        rows=medians,
        figures=figures(medians, appendfsync),
        samples=samples,
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


def test_figures_against_systems_left_out_are_not_there() -> None:
    assert figures(rows(SAMPLES[:1]), "no") == []
    assert figures(rows(SAMPLES[3:]), "no") == []
    assert len(figures(rows([SAMPLES[0], SAMPLES[3]]), "no")) == 4


def test_a_row_is_the_median_of_its_rounds() -> None:
    row = rows([sample("huey", rate) for rate in (100, 900, 300)])["huey"]

    assert row["each"] == (300, 100, 900)
    assert row["trip"].value == pytest.approx(1000 / 300)


def test_the_page_says_what_was_measured_and_on_what() -> None:
    slow = [sample("ours", 2000), sample("huey", 1000, submit=4000.0, memory=20.0)]
    seven = Measured.exactly(7)
    fleet = [Figure("of a fleet", "MB", seven, seven, 1.0)]
    results = Comparison([run(SAMPLES), run(slow, "everysec", rq="a sum is wrong")], fleet)
    text = page(results)

    for words in (
        "--rounds 5 --jobs 5000 --calls 200000 --report'`, 2026-11-21 12:00 UTC",
        "With `appendfsync always`, quiet; a fixed calculation took 10 to 10 ms",
        "rq failed and is left out: a sum is wrong.",
        "| 12,000 jobs/s | 3,000 jobs/s | **4.00** | ≥ 1.3 | yes |",
        "| 2,000 jobs/s | 1,000 jobs/s | **2.00** | ≥ 2 | yes |",
        "Ahead of this cluster: huey at submitting one by one (4,000 jobs/s beside 2,000)",
        "huey at memory of an idle worker (20 MB beside 50).",
        "| of a fleet | 7 MB | 7 MB | **1.00** | ≤ 1 | yes |",
        "| huey | python 3.11.9 |",
        "- server: valkey 9.1.2",
    ):
        assert words in text, words
    assert "do not hold" not in text
    assert page(msgspec.json.decode(msgspec.json.encode(results), type=Comparison)) == text


def test_a_page_from_a_machine_that_became_slower_says_so() -> None:
    slower = sample("huey", 2900, (11.0, 16.0))
    text = page(Comparison([run([*SAMPLES[:-1], slower])], []))

    assert "took 10 to 14 ms, on average around a system's turns: the machine's speed" in text
    assert "the figures do not hold" in text


def test_the_published_page_is_the_template_s() -> None:
    template = TEMPLATE.read_text()
    lines = [re.sub(r"\\\$\w+", ".+", re.escape(line)) for line in template.splitlines() if line]
    published = iter(PAGE.read_text().splitlines())

    for line in lines:  # in this order
        assert any(re.fullmatch(line, each) for each in published), line
    assert [title for title in TITLES.values() if template.count(f"\n| {title} |") != 2] == []


def test_a_peer_that_fails_has_no_more_turns_and_this_cluster_must_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []

    def take(system: System, *_: Any) -> Sample:
        taken.append(system.name)
        if system.name in broken:
            raise ClusterError("its client ended")
        return sample(system.name, 1000)

    monkeypatch.setattr(turn, "take", take)
    server: Any = None
    systems = named(["ours", "huey", "rq"])
    broken, failed = ["huey"], dict[str, str]()
    done = list(take_turns(systems, server, SIZES, 2, Load(), failed))

    assert taken == ["ours", "huey", "rq", "rq", "ours"]
    assert [each.system for each in done] == ["ours", "rq", "rq", "ours"]
    assert failed == {"huey": "its client ended"}
    broken = ["ours"]
    with pytest.raises(ClusterError, match="its client ended"):
        list(take_turns(systems, server, SIZES, 1, Load(), {}))


@pytest.mark.parametrize("system", SYSTEMS, ids=TITLES)
def test_every_package_of_a_peer_is_pinned_and_it_sees_nothing_of_ours(system: System) -> None:
    module = ROOT / "bench" / "peers" / f"{system.module}.py"
    requirements = module.with_suffix(".txt")
    assert requirements.exists() is system.needs_environment
    pinned = requirements if system.needs_environment else ROOT / "constraints.txt"
    lines = [line for line in pinned.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if "==" not in line] == []
    assert set(system.packages) <= {re.split(r"==|\[", line)[0] for line in lines}
    ours = {"callers", "celeryconfig", "celery_streams", "cluster"}
    assert system.is_ours or not set(imports(module)) & ours
    assert system.is_ours or not re.search(r"from bench(?!\.peers[. ])", module.read_text())
    assert set(imports(module.with_name("protocol.py"))) <= sys.stdlib_module_names


def test_a_sum_that_is_wrong_or_missing_is_an_error() -> None:
    check([3, 7], [(1, 2), (3, 4)])
    for values in ([3, 8], [3], [3, None], []):
        with pytest.raises(ValueError, match="wrong or missing"):
            check(values, [(1, 2), (3, 4)])
