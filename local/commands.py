"""The commands of the cluster on a bare machine."""

import os
import sys
from pathlib import Path

import click

from cluster import broker, heartbeat, settings
from cluster.app import create
from local import server
from local.cluster import FAMILIES, STOP_TIMEOUT, Cluster, replicas, running
from local.process import show
from local.state import DEFAULT, Running, State, stop
from local.temporary import call, on_a_cluster_of_its_own

#: Seconds that a broker which is not the cluster's own may take to answer.
CONNECT_TIMEOUT = 5.0
#: What the demo asks for: the callers' arguments.
JOBS = (
    ("callers.add", "4", "6"),
    ("callers.factorial", "20000", "--brief"),
    ("callers.mat_mul", "20", "20", "--brief"),
)


@click.group()
def local() -> None:
    """Run the cluster on this machine, without Docker."""
    # What the server and the workers write holds arguments and results.
    os.umask(0o077)


@local.command()
def demo() -> None:
    """Start a cluster of its own, run the three callers, show their results, and stop it."""
    on_a_cluster_of_its_own(_demo)


def _demo(cluster: Cluster) -> int:
    cluster.start_server()
    cluster.start_workers(dict.fromkeys(FAMILIES, 1))
    return call(cluster, JOBS)


@local.command("demo-parallel")
@click.option("--seconds", default="5", show_default=True, help="How long each job takes.")
def demo_parallel(seconds: str) -> None:
    """Do ten slow sums in series, as a group and as a chord, on a cluster of its own."""

    def compare(cluster: Cluster) -> int:
        cluster.start_server()
        cluster.start_workers({"add": 1})
        return call(cluster, [("callers.parallel", "--seconds", seconds)], draws=True)

    # Log lines would run through the progress bar.
    on_a_cluster_of_its_own(compare, ADD_CONCURRENCY="10", LOG_LEVEL="WARNING")


@local.command()
@click.option("--server-only", is_flag=True, help="Start no workers: they run elsewhere.")
def start(server_only: bool) -> None:
    """Run the cluster in the foreground until Ctrl-C, which stops it in order."""
    state = _state()
    others = [process.pid for process in state.running() if process.role == "supervisor"]
    if others:
        raise click.ClickException(
            f"it runs already (process {others[0]}): `make local_stop` ends it"
        )
    port = settings.integer("REDIS_PORT", 6379, most=65535)
    named = (os.environ.get(name, "") for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"))
    cluster = Cluster(state, port, server.password_file(), *named)
    if server_only and not cluster.needs_server:
        raise click.ClickException(
            "there is no server to start: CELERY_BROKER_URL and CELERY_RESULT_BACKEND name others"
        )
    state.make_private()
    state.forget_stops()
    state.add("supervisor", os.getpid())
    try:
        sys.exit(running(cluster, lambda cluster: _start(cluster, server_only)))
    finally:
        state.remove("supervisor", os.getpid())


def _start(cluster: Cluster, server_only: bool) -> int:
    where = f"127.0.0.1:{cluster.port}"
    if cluster.broker:
        with create("local", set_as_current=False) as app:
            broker.connect(app, CONNECT_TIMEOUT)
            where = app.connection_for_write().as_uri()
    if cluster.needs_server:
        cluster.start_server()
    if not server_only:
        cluster.start_workers(replicas())
    if not cluster.stop_requested:
        show("local", f"ready on {where}; Ctrl-C stops it")
    cluster.run_until_stopped()
    show("local", "stopping: workers finish what they run; Ctrl-C again stops at once")
    return 0


@local.command("stop")
def stop_() -> None:
    """Stop the cluster that `start` runs elsewhere, and whatever is left of it."""
    _stop_all(_state())


@local.command()
def clean() -> None:
    """Stop it, and remove its stored jobs and results: the folder .local, or LOCAL_STATE's."""
    state = _state()
    _stop_all(state)
    left = list(state.running())
    if left:
        raise click.ClickException(f"{left[0].role} (process {left[0].pid}) does not end")
    state.delete()


def _stop_all(state: State) -> None:
    processes = list(state.running())
    supervisors = [process for process in processes if process.role == "supervisor"]
    if not processes:
        click.echo("no local cluster runs")
    _stop(state, supervisors)
    _stop(state, _workers(state))
    _stop(state, [process for process in state.running() if process.role == "server"])


@local.command("kill-workers")
@click.option("--now", is_flag=True, help="Do not wait for running jobs: they run again later.")
def kill_workers(now: bool) -> None:
    """Stop all local workers, wherever they were started; they finish what they run."""
    state = _state()
    workers = _workers(state)
    _stop(state, workers, seconds=0 if now else STOP_TIMEOUT)
    click.echo(f"{len(workers)} worker(s) stopped")


def _workers(state: State) -> list[Running]:
    return [process for process in state.running() if process.role in FAMILIES]


def _stop(state: State, processes: list[Running], seconds: float = STOP_TIMEOUT) -> None:
    for process in stop(state, processes, seconds):
        click.echo(f"{process.role} (process {process.pid}) did not end: killed", err=True)


@local.command()
@click.argument("family", type=click.Choice(FAMILIES))
def worker(family: str) -> None:
    """Run one worker of FAMILY in this terminal, against the local cluster's server."""
    state, pid = _state(), os.getpid()
    state.make_private()
    state.add(family, pid)
    # Celery warns a root of what its tasks could do; here they are the user's own.
    os.environ["PYTHONWARNINGS"] = "ignore:You're running the worker with superuser privileges"
    os.environ[heartbeat.VARIABLE] = str(state.heartbeat(family, pid))
    # The same process goes on as the worker: signals reach Celery itself.
    os.execv(sys.executable, [sys.executable, "-m", f"{family}.worker"])


def _state() -> State:
    return State(Path(os.environ.get("LOCAL_STATE") or DEFAULT))
