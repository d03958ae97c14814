"""`python -m bench.startup`: how long a start takes, until the first result of a job that waits.

A worker's start is measured from its exec, for each family, with its job in the queue before. With
`--docker`, it is the command that a person types, with its images built: from there to the first
and to the last of the three results it prints.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import track

from bench.figures import Figure, Measured, check_writable, missed, table, write
from bench.load import LEAST_SECONDS, Load
from bench.progress import Progress
from bench.values import check, product
from callers.client import Client
from callers.command import run
from cluster import password
from cluster.errors import ClusterError
from local.cluster import Cluster
from local.server import ROOT, free_port
from local.temporary import on_a_cluster_of_its_own

#: Ms that a start may take on two idle cores.
OF_WORKER, OF_STACK = 500.0, 5000.0
#: Seconds after which a start has failed: of a worker to its result, of a worker's end.
TIMEOUT = 30.0
SEED = 7
#: Names the compose files' project: not the one that a person runs.
PROJECT = f"task-cluster-startup-{os.getpid()}"


class Job(NamedTuple):
    """A family's small job, and its value."""

    family: str
    task: str
    args: tuple[int, ...]
    value: Any


JOBS = (
    Job("add", "add.tasks.add", (4, 6), 10),
    Job("factorial", "factorial.tasks.factorial", (10,), 3_628_800),
    Job("mat_mul", "mat_mul.tasks.mat_mul", (2, 2, SEED), product(2, 2, SEED)),
)


@click.command()
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often each start is measured, after one that is not counted.",
)
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path),
    help="Write the figures to this file, too.",
)
@click.option("--docker", is_flag=True, help="Measure the stack on Docker, and not workers.")
def startup(repeats: int, file: Path | None, docker: bool) -> None:
    """Measure how long a start takes until the first result, beside what it may take.

    A bound that is missed is said, and is no error. If it is stopped, what was measured until then
    was told, is kept, and it ends with an error.
    """
    if file:
        try:
            check_writable(file)
        except OSError as error:
            raise click.UsageError(f"cannot write {str(file)!r}: {error}") from None
    load = Load()
    with load.watched():
        sleep(LEAST_SECONDS)
    if docker:
        with Progress("startup") as progress:
            _show(_of_stack(repeats, progress), load, file)
        return

    def measured(cluster: Cluster) -> int:
        with Progress("startup") as progress:
            _show(_of_workers(cluster, repeats, progress), load, file)
        return 0

    on_a_cluster_of_its_own(measured, LOG_LEVEL="WARNING")


def _show(figures: list[Figure], load: Load, file: Path | None) -> None:
    console = Console()
    console.print(table(figures))
    for line in (*load.notes("before the first start"), missed(figures)):
        console.print(line, highlight=False, soft_wrap=True)
    if file:
        write(figures, file)


def _figure(name: str, samples: list[float], bound: float) -> Figure:
    return Figure(name, "ms", Measured.median(samples), Measured.exactly(bound), 1.0)


def _rounds(what: str, repeats: int) -> Iterator[int]:
    """Yield numbers from 0, the round that is not counted: it fills the caches."""
    terminal = Console(stderr=True)
    return iter(
        track(
            range(repeats + 1),
            what,
            console=terminal,
            transient=True,
            auto_refresh=False,
            disable=not terminal.is_terminal,
        )
    )


# Workers -----------------------------------------------------------------------


def _of_workers(cluster: Cluster, repeats: int, progress: Progress) -> list[Figure]:
    """Return the figure of each family's worker."""
    cluster.start_server()
    os.environ[password.VARIABLE] = cluster.env[password.VARIABLE]
    # As users and images have it: modules are compiled once.
    env = {name: value for name, value in cluster.env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    url = password.with_password_file(env["CELERY_BROKER_URL"])
    with Client(url, url) as client:
        return [
            _figure(
                f"worker {job.family}",
                [
                    _kept(progress, f"worker {job.family}", number, _of_worker(client, job, env))
                    for number in _rounds(job.family, repeats)
                ][1:],
                OF_WORKER,
            )
            for job in JOBS
        ]


def _kept(progress: Progress, what: str, number: int, ms: float) -> float:
    """Record a start's time, and return it."""
    progress.keep(f"{what}, start {number}: {ms:.0f} ms", start=number, ms=ms)
    return ms


def _of_worker(client: Client, job: Job, env: Mapping[str, str]) -> float:
    """Return the ms from a worker's exec to the value of a job that waited for it."""
    submitted = client.submit(job.task, *job.args)
    start = perf_counter()
    with _worker(job.family, env):
        value = client.get(submitted, TIMEOUT)
        ms = 1000 * (perf_counter() - start)
    check(job.task, value, job.value)
    return ms


@contextmanager
def _worker(family: str, env: Mapping[str, str]) -> Iterator[None]:
    """Run a worker, quietly, and end it."""
    worker = subprocess.Popen(
        [sys.executable, "-m", f"{family}.worker"],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            worker.kill()


# The stack ---------------------------------------------------------------------


def _of_stack(repeats: int, progress: Progress) -> list[Figure]:
    """Return the figures of the first and of the last result on Docker."""
    starts = []
    for number in _rounds("on Docker", repeats):
        progress.say(f"stack on Docker, start {number}")
        first, last = _of_one_stack()
        _kept(progress, "stack on Docker, last result", number, last)
        starts.append((first, last))
    firsts, lasts = ([*samples] for samples in zip(*starts[1:], strict=True))
    return [
        _figure("stack on Docker, first result", firsts, OF_STACK),
        _figure("stack on Docker, last result", lasts, OF_STACK),
    ]


def _of_one_stack() -> tuple[float, float]:
    """Return the ms from the command to the first and to the last result, then remove all."""
    env = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "REDIS_PORT": str(free_port())}
    try:
        times = _results(["deploy/docker_start"], env)
    finally:
        down = ["docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans"]
        subprocess.run(down, cwd=ROOT, env=env, capture_output=True, check=False)
    return times[0], times[-1]


def _results(command: list[str], env: Mapping[str, str]) -> list[float]:
    """Return after how many ms a command prints each result: the line after its caller's name."""
    start = perf_counter()
    times, lines = [], [""]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            if lines[-1].startswith("call-"):
                times.append(1000 * (perf_counter() - start))
            lines.append(line)
    if process.returncode or not times:
        raise ClusterError(f"{' '.join(command)} failed: {' '.join(lines[-3:])}")
    return times


if __name__ == "__main__":
    run(startup)
