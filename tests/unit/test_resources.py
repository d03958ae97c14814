"""Cores and memory, read from the files of control groups."""

import os
from pathlib import Path

import pytest

from cluster import resources


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_the_cores_are_those_that_affinity_and_quota_allow(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    _write(tmp_path, files)

    assert resources.cores(tmp_path) == cores


def test_the_memory_is_the_machines_or_the_groups() -> None:
    assert resources.memory(Path("/nowhere")) > 2**28


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_memory_is_the_groups_where_it_has_a_limit(tmp_path: Path, name: str) -> None:
    _write(tmp_path, {name: "1048576\n"})

    assert resources.memory(tmp_path) == 2**20


@pytest.mark.parametrize(
    ("processes", "given", "threads"),
    [
        (1, {}, 8),
        (2, {}, 4),
        (3, {}, 2),
        (20, {}, 1),
        (1, {"OMP_NUM_THREADS": "3"}, 3),
        (4, {"OPENBLAS_NUM_THREADS": "8"}, 2),
        (1, {"OMP_NUM_THREADS": "x"}, 8),
    ],
)
def test_processes_and_their_threads_are_never_more_than_the_cores(
    processes: int, given: dict[str, str], threads: int
) -> None:
    environment = dict(given)

    resources.share_cores(processes, environment)

    assert environment == {
        **dict.fromkeys(resources.THREAD_VARIABLES, str(threads)),
        "OPENBLAS_THREAD_TIMEOUT": "4",
    }


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
