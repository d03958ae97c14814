"""The number of a worker's processes and of their BLAS threads."""

from pathlib import Path

import pytest

from cluster import resources
from tests.support.local import Local
from tests.support.waiting import eventually

linux_only = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="threads are counted in Linux's /proc"
)


@linux_only
def test_processes_and_threads_are_never_more_than_the_cores(server_only: Local) -> None:
    wanted = resources.cores() + 3
    with (
        server_only.own_worker("mat_mul.worker", MAT_MUL_CONCURRENCY=str(wanted)) as worker,
        server_only.client() as client,
    ):
        client.map("mat_mul.tasks.mat_mul", [(300, 300, seed) for seed in range(20)])

        main = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        processes = main.read_text().split()
        assert len(processes) == resources.cores()
        eventually(
            "one thread in each process",
            lambda: (
                [len([*Path(f"/proc/{pid}/task").iterdir()]) for pid in processes]
                == [1] * resources.cores()
            ),
        )
    warning = f"warning: mat_mul runs {resources.cores()} jobs at a time, one per core, instead of"
    assert warning in server_only.own_log.read_text()
