"""`python -m bench.startup`: the time from a start to the first result of a waiting job.

For each family, a worker's start is measured from its exec, with a job already in the queue. With
`--docker`, it is measured from the user's command, with images built, to the first and to the last
of the three results that it prints.
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
from bench.load import MIN_SECONDS, Load
from bench.progress import Progress
from bench.values import check, product
from callers.client import Client
from callers.command import run
from cluster import password
from cluster.errors import ClusterError
from local.cluster import Cluster
from local.server import ROOT, free_port
from local.temporary import run_on_temporary_cluster

#: Bounds of a start on two idle cores, in ms.
MAX_WORKER_MS, MAX_STACK_MS = 500.0, 5000.0
#: Timeout of a worker's first result, and of its end, in seconds.
TIMEOUT = 30.0
SEED = 7
#: Name of the Compose project, which differs from the user's.
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
    help="Repeats of each start, after one that is not counted.",
)
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path),
    help="Also write the figures to this file.",
)
@click.option("--docker", is_flag=True, help="Measure the stack on Docker instead of workers.")
def startup(repeats: int, file: Path | None, docker: bool) -> None:
    """Measure the time from a start to the first result, beside its bound.

    A missed bound is reported, but is not an error. If it is interrupted, the times so far are
    kept, and it exits with an error.
    """
    if file:
        try:
            check_writable(file)
        except OSError as error:
            raise click.UsageError(f"cannot write {str(file)!r}: {error}") from None
    load = Load()
    with load.watched():
        sleep(MIN_SECONDS)
    if docker:
        with Progress("startup") as progress:
            _print(_of_stack(repeats, progress), load, file)
        return

    def measured(cluster: Cluster) -> int:
        with Progress("startup") as progress:
            _print(_of_workers(cluster, repeats, progress), load, file)
        return 0

    run_on_temporary_cluster(measured, LOG_LEVEL="WARNING")


def _print(figures: list[Figure], load: Load, file: Path | None) -> None:
    console = Console()
    console.print(table(figures))
    for line in (*load.notes("before the first start"), missed(figures)):
        console.print(line, highlight=False, soft_wrap=True)
    if file:
        write(figures, file)


def _figure(name: str, samples: list[float], bound: float) -> Figure:
    return Figure(name, "ms", Measured.median(samples), Measured.exactly(bound), 1.0)


def _rounds(what: str, repeats: int) -> Iterator[int]:
    """Yield the numbers of the rounds; round 0 fills the caches and is not counted."""
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
    # As for users and in images, modules are compiled only once.
    env = {name: value for name, value in cluster.env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    url = password.with_password_file(env["CELERY_BROKER_URL"])
    with Client(url, url) as client:
        return [
            _figure(
                f"worker {job.family}",
                [
                    _record(progress, f"worker {job.family}", number, _of_worker(client, job, env))
                    for number in _rounds(job.family, repeats)
                ][1:],
                MAX_WORKER_MS,
            )
            for job in JOBS
        ]


def _record(progress: Progress, what: str, number: int, ms: float) -> float:
    """Record the time of a start, and return it."""
    progress.keep(f"{what}, start {number}: {ms:.0f} ms", start=number, ms=ms)
    return ms


def _of_worker(client: Client, job: Job, env: Mapping[str, str]) -> float:
    """Return the ms from a worker's exec to the value of a waiting job."""
    submitted = client.submit(job.task, *job.args)
    start = perf_counter()
    with _worker(job.family, env):
        value = client.get(submitted, TIMEOUT)
        ms = 1000 * (perf_counter() - start)
    check(job.task, value, job.value)
    return ms


@contextmanager
def _worker(family: str, env: Mapping[str, str]) -> Iterator[None]:
    """Run a worker without output, and end it."""
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
        progress.report(f"stack on Docker, start {number}")
        first, last = _of_one_stack()
        _record(progress, "stack on Docker, last result", number, last)
        starts.append((first, last))
    firsts, lasts = ([*samples] for samples in zip(*starts[1:], strict=True))
    return [
        _figure("stack on Docker, first result", firsts, MAX_STACK_MS),
        _figure("stack on Docker, last result", lasts, MAX_STACK_MS),
    ]


def _of_one_stack() -> tuple[float, float]:
    """Return the ms from the command to the first and to the last result; remove the stack."""
    env = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "REDIS_PORT": str(free_port())}
    try:
        times = _results(["deploy/docker_start"], env)
    finally:
        down = ["docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans"]
        subprocess.run(down, cwd=ROOT, env=env, capture_output=True, check=False)
    return times[0], times[-1]


def _results(command: list[str], env: Mapping[str, str]) -> list[float]:
    """Return the ms until a command prints each result, the line after its caller's name."""
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
