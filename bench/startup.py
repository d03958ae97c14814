"""`python -m bench.startup`: the time from a start to the first result of a waiting job.

For each family, a worker's start is measured from its exec, with a job already in the queue. With
`--docker`, it is measured from the user's command, with images built, to the first and to the last
of the three results that it prints.
"""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import click

from bench import command
from bench.command import Results
from bench.figures import Figure, Measured
from bench.load import MIN_SECONDS, Load
from bench.programs import Program
from bench.progress import report, stop_like_ctrl_c
from bench.progress import rounds as rounds_of
from bench.values import SEED, check, product
from callers.client import Client
from celery_streams.cli import run
from cluster.connections import password
from cluster.errors import ClusterError
from local.cluster import Cluster
from local.server import ROOT, free_port
from local.temporary import run_on_temporary_cluster

#: Bounds of a start on two idle cores, in ms.
MAX_WORKER_MS, MAX_STACK_MS = 500.0, 5000.0
#: Timeout of a worker's first result, in seconds.
TIMEOUT = 30.0
#: Name of the Compose project, which differs from the user's.
PROJECT = f"task-cluster-startup-{os.getpid()}"


#: A small job of each family: its task, arguments and value.
JOBS: dict[str, tuple[str, tuple[int, ...], Any]] = {
    "add": ("add.tasks.add", (4, 6), 10),
    "factorial": ("factorial.tasks.factorial", (10,), 3_628_800),
    "mat_mul": ("mat_mul.tasks.mat_mul", (2, 2, SEED), product(2, 2, SEED)),
}


@click.command()
@command.rounds(5)
@command.json
@click.option("--docker", is_flag=True, help="Measure the stack on Docker instead of workers.")
def startup(rounds: int, file: Path | None, docker: bool) -> None:
    """Measure the time from a start to the first result, beside its bound.

    A missed bound is reported, but is not an error.
    """
    load = Load()
    with load.watched():
        sleep(MIN_SECONDS)

    def finish(figures: list[Figure]) -> int:
        results = Results(figures, [load.note("before the first start")])
        command.show_figures(results.figures, results.notes)
        command.write(results, file)
        return 0

    if docker:
        stop_like_ctrl_c()
        finish(_of_stack(rounds))
    else:
        run_on_temporary_cluster(
            lambda cluster: finish(_of_workers(cluster, rounds)), LOG_LEVEL="WARNING"
        )


def _figure(name: str, starts: list[float], bound: float) -> Figure:
    """Return the figure of starts, without the first, which fills the caches."""
    return Figure(name, "ms", Measured.median(starts[1:]), Measured.exactly(bound), 1.0)


def _of_workers(cluster: Cluster, rounds: int) -> list[Figure]:
    """Return the figure of each family's worker."""
    cluster.start_server()
    os.environ[password.VARIABLE] = cluster.env[password.VARIABLE]
    # As for users and in images, modules are compiled only once.
    env = {name: value for name, value in cluster.env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    url = password.with_password_file(env["CELERY_BROKER_URL"])
    with Client(url, url) as client:

        def start(family: str) -> float:
            """Return the ms from a worker's exec to the value of a waiting job."""
            task, args, expected = JOBS[family]
            job = client.submit(task, *args)
            began = perf_counter()
            argv = [sys.executable, "-m", f"{family}.worker"]
            with Program(family, argv, env, cluster.state.folder):
                value = client.get(job, TIMEOUT)
                ms = 1000 * (perf_counter() - began)
            check(task, value, expected)
            report(f"{family}: {ms:.0f} ms")
            return ms

        return [
            _figure(f"worker {family}", [start(family) for _ in range(rounds + 1)], MAX_WORKER_MS)
            for family in JOBS
        ]


def _of_stack(rounds: int) -> list[Figure]:
    """Return the figures of the first and of the last result on Docker."""
    starts = [_of_one_stack() for _ in rounds_of("stack on Docker", rounds + 1)]
    firsts, lasts = ([*samples] for samples in zip(*starts, strict=True))
    return [
        _figure("stack on Docker, first result", firsts, MAX_STACK_MS),
        _figure("stack on Docker, last result", lasts, MAX_STACK_MS),
    ]


def _of_one_stack() -> tuple[float, float]:
    """Return the ms from the command to the first and to the last result; remove the stack.

    A result is the line after its caller's name.
    """
    env = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "REDIS_PORT": str(free_port())}
    began = perf_counter()
    times, lines = [], [""]
    try:
        with subprocess.Popen(
            ["deploy/docker_start"],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                if lines[-1].startswith("call-"):
                    times.append(1000 * (perf_counter() - began))
                lines.append(line)
    finally:
        down = ["docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans"]
        subprocess.run(down, cwd=ROOT, env=env, capture_output=True, check=False)
    if process.returncode or not times:
        raise ClusterError(f"deploy/docker_start failed: {' '.join(lines[-3:])}")
    return times[0], times[-1]


if __name__ == "__main__":
    run(startup)
