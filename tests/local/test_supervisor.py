"""`python -m local`: the order of its start and its stop, and its clean-up."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from local.server import ROOT
from tests.support.families import FAMILIES
from tests.support.local import Local
from tests.support.waiting import eventually


def test_the_demo_shows_the_three_results_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [line[13:] for line in done.stdout.splitlines() if line.startswith("caller ")]
    assert results[:2] == ["$ python -m callers.add 4 6", "10"]
    assert results[3] == "18192063202303451348…00000000000000000000 (77338 digits)"
    assert results[5].startswith("[[")
    assert list(tmp_path.iterdir()) == []
    assert f"{tmp_path}" not in _processes()


def test_ctrl_c_lets_running_jobs_finish_and_stops_the_server_last(own_local: Local) -> None:
    with own_local.client() as client:
        job = client.submit("add.tasks.longtime_add", 4, 6, 3)
        eventually("the job runs", lambda: job.state == "STARTED")
    processes = list(own_local.state.running())

    assert own_local.stop() == 0
    output = own_local.output()
    assert "succeeded" in output
    assert output.index("succeeded") < output.index("ready to exit")
    assert {process.role for process in processes} == {"supervisor", "server", *FAMILIES}
    assert list(own_local.state.running()) == []
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


def test_ctrl_c_twice_stops_at_once_and_the_job_runs_at_the_next_start(tmp_path: Path) -> None:
    first = Local(tmp_path)
    first.wait_until_ready()
    with first.client() as client:
        job = client.submit("add.tasks.longtime_add", 4, 6, 6)
        eventually("the job runs", lambda: job.state == "STARTED")
    first.process.send_signal(signal.SIGINT)
    eventually("it stops", lambda: "stopping" in first.output())
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(60) == 0
    assert "succeeded" not in first.output()

    second = Local(tmp_path)
    try:
        second.wait_until_ready()
        with second.client() as client:
            assert client.app.AsyncResult(job.id).get(timeout=60) == 10
    finally:
        second.stop()


def test_signals_that_come_one_upon_the_other_do_not_lock_it() -> None:
    # Signals interrupt the handlers of earlier ones, at any point.
    program = (
        "import signal\n"
        "from pathlib import Path\n"
        "from local.cluster import Cluster\n"
        "from local.state import State\n"
        "cluster = Cluster(State(Path('.local')), 1, Path('none'))\n"
        "signal.signal(signal.SIGALRM, cluster.request_stop)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)\n"
        "while cluster._stop_requests < 5_000:\n"
        "    cluster.run_until_stopped()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0


def test_a_worker_that_is_killed_is_started_again(own_local: Local) -> None:
    (killed,) = own_local.running("add")
    os.kill(killed.pid, signal.SIGKILL)

    eventually("another worker", lambda: own_local.running("add") not in ([], [killed]))
    with own_local.client() as client:
        assert client.call("add.tasks.add", 4, 6) == 10


def test_a_server_that_is_killed_is_started_again_with_its_jobs(own_local: Local) -> None:
    (killed,) = own_local.running("server")
    with own_local.client() as client:
        running = client.submit("add.tasks.longtime_add", 4, 6, 2)
        eventually("the job runs", lambda: running.state == "STARTED")
        os.kill(killed.pid, signal.SIGKILL)
        eventually("another server", lambda: own_local.running("server") not in ([], [killed]))

        assert client.call("add.tasks.add", 1, 2) == 3
        assert client.get(running) == 10


def test_kill_workers_ends_all_workers_and_nothing_else(own_local: Local) -> None:
    with own_local.own_worker("local", "worker", "add") as own:
        heartbeat = own_local.state.heartbeat("add", own.pid)
        eventually("the second add worker", heartbeat.exists)
        done = own_local.command("local", "kill-workers")

        assert done.stdout == f"{len(FAMILIES) + 1} worker(s) stopped\n"
        assert own.wait(60) == 0
    assert [process.role for process in own_local.state.running()] == ["server", "supervisor"]
    # What ends later is restarted, and they are not.
    (killed,) = own_local.running("server")
    os.kill(killed.pid, signal.SIGKILL)
    eventually("another server", lambda: own_local.running("server") not in ([], [killed]))
    assert [process.role for process in own_local.state.running()] == ["server", "supervisor"]


def test_a_worker_in_a_terminal_of_its_own_serves_its_queue(server_only: Local) -> None:
    with server_only.own_worker("local", "worker", "add"), server_only.client() as client:
        assert client.call("add.tasks.add", 4, 6) == 10


def test_every_pool_process_is_connected_before_its_first_job(server_only: Local) -> None:
    with server_only.own_worker("add.worker", ADD_CONCURRENCY="4"), server_only.client() as client:
        server: Any = client.app.backend
        eventually(
            "four connections that only said ping",
            lambda: [each["cmd"] for each in server.client.client_list()].count("ping") >= 4,
        )


def test_local_stop_ends_a_cluster_started_elsewhere(own_local: Local) -> None:
    done = own_local.command("local", "stop")

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert own_local.process.wait(60) == 0
    assert list(own_local.state.running()) == []
    assert own_local.command("local", "stop").stdout == "no local cluster is running\n"


def test_local_stop_ends_what_a_killed_supervisor_left(own_local: Local) -> None:
    own_local.process.kill()
    own_local.process.wait(60)
    assert own_local.running("server")

    assert own_local.command("local", "stop").returncode == 0
    assert list(own_local.state.running()) == []


def test_a_closed_terminal_stops_it_in_order(own_local: Local) -> None:
    own_local.process.send_signal(signal.SIGHUP)

    assert own_local.process.wait(30) == 0
    assert list(own_local.state.running()) == []


def test_a_path_with_spaces_and_quotes_is_as_good_as_any(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" c'
    folder.mkdir()
    local = Local(folder)
    try:
        local.wait_until_ready()
    finally:
        assert local.stop() == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("two\nlines", "must contain one line of text"),
    ],
)
def test_a_password_file_without_one_line_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "password").write_text(text)
    local = Local(tmp_path)

    assert local.process.wait(30) == 1
    assert local.output() == (
        f"error: the Redis password file {tmp_path / 'password'} (REDIS_PASSWORD_FILE) {what}\n"
    )


def test_what_the_server_prints_of_its_configuration_is_no_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cr3t-w0rd")
    local = Local(tmp_path, REDIS_SERVER="/bin/cat")  # prints all of it, and ends

    assert local.process.wait(60) == 1
    assert "bind 127.0.0.1" in local.output()
    assert "s3cr3t-w0rd" not in local.output()


def test_a_second_start_is_refused(own_local: Local) -> None:
    done = own_local.command("local", "start")

    assert done.returncode == 1
    assert done.stderr.startswith("error: the cluster is already running")


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        local = Local(tmp_path, REDIS_PORT=str(port))

        assert local.process.wait(30) == 1
    assert local.output() == (
        f"error: port {port} is taken (Address already in use): "
        "set REDIS_PORT to another, or stop what listens there "
        "(a cluster on Docker: make docker_compose_stop)\n"
    )


@pytest.mark.parametrize(
    ("variable", "text"), [("ADD_REPLICAS", "none"), ("REDIS_PORT", "x"), ("REDIS_PORT", "70000")]
)
def test_a_setting_that_is_not_a_number_is_one_line(
    tmp_path: Path, variable: str, text: str
) -> None:
    local = Local(tmp_path, **{variable: text})

    assert local.process.wait(30) == 1
    assert variable in local.output().splitlines()[-1]
    assert "Traceback" not in local.output()


def _processes() -> str:
    texts = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # the kernel's own, or one that has just ended
            texts.append(file.read_text(errors="replace"))
    return "".join(texts)
