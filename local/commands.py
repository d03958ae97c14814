"""The commands of the local cluster."""

import os
import signal
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import click

from celeryconfig import families
from cluster import heartbeat, settings
from cluster.app import create
from cluster.connections import broker
from local import server
from local.cluster import FAMILIES, STOP_TIMEOUT, Cluster, replicas, run_and_stop
from local.process import end, show
from local.state import DEFAULT_FOLDER, State
from local.temporary import call, run_on_temporary_cluster
from local.watch import changes

#: Time limit of connecting to a broker that the cluster does not start, in seconds.
CONNECT_TIMEOUT = 5.0
#: The callers that the demo runs, with their arguments.
DEMO = {name: (f"callers.{name}", *row.demo) for name, row in families.items()}


@click.group()
def local() -> None:
    """Run the cluster on this machine, without Docker."""
    # The files of the server and the workers contain arguments and results.
    os.umask(0o077)


@local.command()
def demo() -> None:
    """Run the three callers on a temporary cluster and show their results."""
    run_on_temporary_cluster(_demo)


def _demo(cluster: Cluster) -> int:
    cluster.start_server()
    cluster.start_workers(dict.fromkeys(FAMILIES, 1))
    return call(cluster, DEMO.values())


@local.command("demo-parallel")
@click.option("--seconds", default="5", show_default=True, help="How long each addition takes.")
def demo_parallel(seconds: str) -> None:
    """Run ten slow additions in series, as a group and as a chord, on a temporary cluster."""

    def compare(cluster: Cluster) -> int:
        cluster.start_server()
        cluster.start_workers({"add": 1})
        return call(cluster, [("callers.parallel", "--seconds", seconds)], draws=True)

    # Log lines would break the progress bar.
    run_on_temporary_cluster(compare, ADD_CONCURRENCY="10", LOG_LEVEL="WARNING")


@local.command()
@click.option("--server-only", is_flag=True, help="Start no workers: they run elsewhere.")
@click.option("--watch", type=click.Choice(FAMILIES), help="Reload its workers at each change.")
def start(server_only: bool, watch: str | None) -> None:
    """Run the cluster in the foreground until Ctrl-C, then stop it gracefully."""
    state = _state()
    others = [process.pid for process in state.running() if process.role == "supervisor"]
    if others:
        raise click.ClickException(
            f"the cluster is already running (process {others[0]}): `make local_stop` stops it"
        )
    if server_only and watch:
        raise click.UsageError("--watch needs workers, and --server-only starts none")
    port = settings.integer("REDIS_PORT", 6379, maximum=65535)
    urls = (os.environ.get(name, "") for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"))
    cluster = Cluster(state, port, server.password_file(), *urls)
    if server_only and not cluster.needs_server:
        raise click.ClickException(
            "there is no server to start: CELERY_BROKER_URL and CELERY_RESULT_BACKEND name others"
        )
    state.make_private()
    state.add("supervisor", os.getpid())
    sys.exit(run_and_stop(cluster, lambda cluster: _start(cluster, server_only, watch)))


def _start(cluster: Cluster, server_only: bool, watched: str | None) -> int:
    where = f"127.0.0.1:{cluster.port}"
    if cluster.broker:
        with create("local", set_as_current=False) as app:
            broker.connect(app, CONNECT_TIMEOUT)
            where = app.connection_for_write().as_uri()
    changed = changes(watched) if watched else iter(())
    next(changed, None)
    if cluster.needs_server:
        cluster.start_server()
    if not server_only:
        cluster.start_workers(replicas())
    if not cluster.stop_requested:
        show("local", f"ready on {where}; Ctrl-C stops it")
    if watched:
        _reload(cluster, watched, changed)
    cluster.run_until_stopped()
    show("local", "stopping: workers finish their running jobs; Ctrl-C again stops at once")
    return 0


def _reload(cluster: Cluster, family: str, changed: Iterator[list[str]]) -> None:
    """Keep everything running until a stop is requested; reload a family when its code changes."""
    for files in changed:
        if cluster.stop_requested:
            return
        if files:
            names = ", ".join(os.path.relpath(file, server.ROOT) for file in files)
            show("local", f"{names} changed: {family} restarts")
            cluster.reload(family, replicas()[family])
        cluster.restart_ended()


@local.command("stop")
def stop_() -> None:
    """Stop the cluster that `start` runs in another terminal, and any process left of it."""
    _stop_all(_state())


@local.command()
def clean() -> None:
    """Stop the cluster, then delete its jobs and results: the folder .local, or LOCAL_STATE."""
    state = _state()
    _stop_all(state)
    for left in state.running():
        raise click.ClickException(f"{left.role} (process {left.pid}) did not stop")
    state.delete()


def _stop_all(state: State) -> None:
    if not any(state.running()):
        click.echo("no local cluster is running")
    for roles in (["supervisor"], FAMILIES, ["server"]):
        _stop(state, roles)


@local.command("kill-workers")
def kill_workers() -> None:
    """Stop all local workers, wherever they were started; they finish their running jobs."""
    click.echo(f"{_stop(_state(), FAMILIES)} worker(s) stopped")


def _stop(state: State, roles: Collection[str]) -> int:
    """Stop the processes of some roles, and return how many there were."""
    stopped = {each.process: each.role for each in state.running() if each.role in roles}
    for process in end([*stopped], signal.SIGTERM, STOP_TIMEOUT):
        click.echo(f"{stopped[process]} (process {process.pid}) did not stop: killed", err=True)
    return len(stopped)


@local.command()
@click.argument("family", type=click.Choice(FAMILIES))
def worker(family: str) -> None:
    """Run one worker of FAMILY in this terminal, on the local cluster's server."""
    state, pid = _state(), os.getpid()
    state.make_private()
    state.add(family, pid)
    # Celery warns root about what tasks could do; here they are the user's own.
    os.environ["PYTHONWARNINGS"] = "ignore:You're running the worker with superuser privileges"
    os.environ[heartbeat.VARIABLE] = str(state.heartbeat(family, pid))
    # Replaces this process, so that signals reach Celery directly.
    os.execv(sys.executable, [sys.executable, "-m", f"{family}.worker"])


@local.command("call")
@click.argument("family", type=click.Choice(FAMILIES))
def call_(family: str) -> None:
    """Compute on the running cluster what the demo asks of FAMILY."""
    module, *arguments = DEMO[family]
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def _state() -> State:
    return State(Path(os.environ.get("LOCAL_STATE") or DEFAULT_FOLDER))
