"""The callers' commands: their output, and their errors of one line."""

import hashlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery import xmap
from rich.console import Console

from callers.inspect import jobs_table, workers_table
from factorial.examples import DIGESTS
from local.server import ROOT
from mat_mul.examples import product
from tests.support.families import FAMILIES
from tests.support.local import Local
from tests.support.waiting import eventually

SUBMIT = ("callers.submit", "add.tasks.add", "4", "6")
PARALLEL = ("callers.parallel", "--seconds")


@pytest.mark.parametrize(
    ("argv", "printed"),
    [
        (("callers.add", "4", "6"), "10\n"),
        (("callers.add", "-4", "0.5"), "-3.5\n"),
        (("callers.add", "1+2j", "1_000"), "(1001+2j)\n"),
        (("callers.add", "9" * 5000, "1"), "1" + "0" * 5000 + "\n"),
        (("callers.add", "nan", "1", "--timeout", "20"), "nan\n"),
        (("callers.factorial", "5"), "120\n"),
        (("callers.factorial", "0", "--brief"), "1\n"),
        (
            ("callers.factorial", "20000", "--brief"),
            "18192063202303451348…00000000000000000000 (77338 digits)\n",
        ),
        (("callers.mat_mul", "1", "1", "--seed", "0"), f"{product(1, 1, 0)}\n"),
    ],
)
def test_a_command_prints_its_result(local: Local, argv: tuple[str, ...], printed: str) -> None:
    done = local.command(*argv)

    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


def test_a_terminal_shows_the_wait_and_then_a_long_result_in_brief(local: Local) -> None:
    shown = on_a_terminal(local, "callers.factorial", "20000")

    assert "waiting for factorial.tasks.factorial" in shown
    assert shown.rstrip().endswith("00000000 (77338 digits)")


def on_a_terminal(local: Local, *argv: str) -> str:
    """Run `python -m …` on a terminal and return its output."""
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        env={**local.env, "TERM": "xterm"},
        stdout=end,
        stderr=end,
    ):
        os.close(end)
        shown = b""
        with suppress(OSError):  # Linux says EIO when the other end is closed
            while data := os.read(terminal, 4096):
                shown += data
    os.close(terminal)
    return shown.decode()


@pytest.mark.parametrize("n", DIGESTS)
def test_all_digits_go_into_a_pipe(local: Local, n: int) -> None:
    done = local.command("callers.factorial", str(n))

    assert hashlib.sha256(done.stdout.strip().encode()).hexdigest() == DIGESTS[n]


def test_all_digits_go_into_a_file(local: Local, tmp_path: Path) -> None:
    file = tmp_path / "digits"
    done = local.command("callers.factorial", "20000", "--out", str(file))

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert file.read_text().endswith("0\n")
    digest = hashlib.sha256(file.read_bytes().rstrip()).hexdigest()
    assert digest == DIGESTS[20_000]


@pytest.mark.parametrize("options", [(), ("--tiled",)])
def test_a_matrix_goes_into_a_file(local: Local, tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "c.npy"
    done = local.command(
        "callers.mat_mul", *["20", "30", "--seed", "7", "--out"], str(file), *options
    )

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    np.testing.assert_allclose(np.load(file), product(20, 30, 7))


@pytest.mark.parametrize(
    ("a", "b", "printed"),
    [
        (np.arange(4).reshape(2, 2), np.eye(2), "[[0. 1.]\n [2. 3.]]\n"),
        (np.arange(3), np.arange(3), "5\n"),
        (np.ones((2, 1, 2), complex), np.ones(2), "[[2.+0.j]\n [2.+0.j]]\n"),
        (np.zeros((0, 2)), np.zeros((2, 0)), "[]\n"),
    ],
)
def test_operands_come_from_files(
    local: Local, tmp_path: Path, a: Any, b: Any, printed: str
) -> None:
    files = [f"--{name}={tmp_path}/{name}.npy" for name in "ab"]
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    done = local.command("callers.mat_mul", *files)

    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


@pytest.mark.parametrize("argv", [("factorial", "1000001"), ("mat_mul", "5", "5", "--seed", "-1")])
def test_a_job_that_fails_leaves_no_file(
    local: Local, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    done = local.command(f"callers.{argv[0]}", *argv[1:], "--out", str(tmp_path / "out"))

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said", "status"),
    [(signal.SIGINT, "error: stopped", 130), (signal.SIGTERM, "", 143)],
)
def test_a_stopped_caller_leaves_no_file(
    server_only: Local, tmp_path: Path, number: signal.Signals, said: str, status: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "callers.mat_mul", "5", "5", "--out", tmp_path / "out"],
        cwd=ROOT,
        env=server_only.env,
        stderr=subprocess.PIPE,
        text=True,
    ) as caller:
        eventually("the new file is there", lambda: bool(list(tmp_path.glob(".out.*.part"))))
        caller.send_signal(number)
        try:
            _, errors = caller.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            # Python drops an interrupt in a destructor: a user presses Ctrl-C again.
            caller.send_signal(number)
            _, errors = caller.communicate(timeout=30)

    assert (errors.strip(), caller.returncode) == (said, status)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out.*"))


@pytest.mark.parametrize(
    ("argv", "status", "error"),
    [
        (("callers.add", "4"), 2, "Missing argument 'Y' (see --help)"),
        (("callers.add", "4", "6", "7"), 2, "Got unexpected extra argument (7)"),
        (("callers.add", "four", "6"), 2, "Invalid value for 'X': 'four' is not a number"),
        (("callers.add", "True", "6"), 2, "Invalid value for 'X': 'True' is not a number"),
        (("callers.add", "--5", "6"), 2, "Invalid value for 'X': '--5' is not a number"),
        (("callers.add", "4 4", "6"), 2, "Invalid value for 'X': '4 4' is not a number"),
        (("callers.factorial", "--4"), 2, "'--4' is not a whole number"),
        (("callers.factorial", "0x"), 2, "'0x' is not a whole number"),
        (("callers.factorial", "1__0"), 2, "'1__0' is not a whole number"),
        (("callers.add", "", "6"), 2, "Invalid value for 'X': '' is not a number"),
        (("callers.add", "4", "6", "--timeout", "0"), 2, "'0' is not a time in seconds above zero"),
        (
            ("callers.add", "4", "6", "--timeout", "nan"),
            2,
            "'nan' is not a time in seconds above zero",
        ),
        (("callers.add", "4", "6", "--timeot", "3"), 2, "Got unexpected extra arguments"),
        (("callers.factorial",), 2, "Missing argument 'N' (see --help)"),
        (("callers.factorial", "2.5"), 2, "'2.5' is not a whole number"),
        (("callers.factorial", "nan"), 2, "'nan' is not a whole number"),
        (("callers.factorial", "-5"), 1, "n must be at least 0, not -5"),
        (("callers.factorial", "1000001"), 1, "at most 1000000 (FACTORIAL_MAX_N)"),
        (("callers.mat_mul", "5"), 2, "Missing argument 'N' (see --help)"),
        (("callers.mat_mul", "0", "5"), 1, "m must be at least 1, not 0"),
        (("callers.mat_mul", "5", "-5"), 1, "n must be at least 1, not -5"),
        (("callers.mat_mul", "1000000", "1"), 2, "the product needs 8000000000000 bytes"),
        (("callers.mat_mul", "1", "100000000"), 1, "(a quarter of MAT_MUL_MAX_BYTES)"),
        (("callers.mat_mul", "5", "5", "--seed", "x"), 2, "'x' is not a whole number"),
        (("callers.mat_mul", "5", "5", "--out", "/nowhere/c.npy"), 2, "no folder '/nowhere'"),
        (("callers.mat_mul", "5", "5", "--out", "/"), 2, "Is a directory"),
        (("callers.submit",), 2, "Missing argument 'TASK' (see --help)"),
        (("callers.submit", "add.tasks.add", "4", "six"), 2, "y must be a number, not 'six'"),
        (("callers.submit", "add.tasks.ad", "4", "6"), 1, "did you mean 'add.tasks.add'?"),
        ((*SUBMIT, "--priority", "urgent"), 2, "not 'urgent'"),
        ((*SUBMIT, "--priority", "10"), 2, "0 to 9, not 10"),
        ((*SUBMIT, "--countdown", "x"), 2, "'x' is not a valid float"),
        ((*SUBMIT, "--countdown", "-1"), 2, "(MAX_COUNTDOWN), not -1.0"),
        ((*SUBMIT, "--countdown", "nan"), 2, "not nan"),
        ((*SUBMIT, "--eta", "soon"), 2, "eta must be a time in ISO 8601"),
        ((*SUBMIT, "--eta", "2020-01-01"), 2, "must not be in the past"),
        ((*SUBMIT, "--eta", "9999-01-01"), 2, "within 86400 s from now"),
        ((*SUBMIT, "--queue", "ad"), 2, "the queues are add, "),
        (("callers.result",), 2, "Missing argument 'ID' (see --help)"),
        (("callers.result", ""), 2, "ID must not be empty"),
        (("callers.result", "x", "--timeout", "3"), 1, "nothing is known of job x"),
        (("callers.canvas", "rope"), 2, "'rope' is not one of 'chain'"),
        (("callers.parallel", "--seconds", "0"), 2, "'0' is not a time in seconds above zero"),
        (("callers.parallel", "--seconds", "101"), 1, "(MAX_WAIT), not 101"),
        (("callers.inspect", "--timeout", "-1"), 2, "'-1' is not a time in seconds above zero"),
    ],
)
def test_a_wrong_command_gives_one_line(
    local: Local, argv: tuple[str, ...], status: int, error: str
) -> None:
    done = local.command(*argv)

    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "module", [*FAMILIES, "submit", "result", "canvas", "parallel", "inspect", "beat"]
)
def test_a_command_explains_itself(local: Local, module: str) -> None:
    done = local.command(f"callers.{module}", "--help")

    assert done.returncode == 0
    assert "Options:" in done.stdout


@pytest.mark.parametrize(
    ("target", "error"),
    [(">/dev/full", "error: [Errno 28] No space left on device\n"), ("| head -c 1", "")],
)
def test_an_output_that_takes_no_more_is_no_traceback(
    local: Local, target: str, error: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m callers.canvas {target}"],
        cwd=ROOT,
        env=local.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stderr, done.returncode) == (error, 1)


@pytest.mark.parametrize(
    "words", [("4", "6"), ("4", "y=6"), ("x=4", "y=6"), ("9" * 5000, "-" + "9" * 4998 + "89")]
)
def test_a_job_is_submitted_by_one_command_and_fetched_by_another(
    local: Local, words: tuple[str, ...]
) -> None:
    submitted = local.command("callers.submit", "add.tasks.add", *words)
    fetched = local.command("callers.result", submitted.stdout.strip())
    state = local.command("callers.result", submitted.stdout.strip(), "--state")

    assert (submitted.returncode, fetched.stdout, state.stdout) == (0, "10\n", "SUCCESS\n")


def test_a_result_that_is_a_list_of_long_integers_is_printed(local: Local) -> None:
    with local.client() as client:
        factorials: Any = client.signature("factorial.tasks.factorial")
        job = client.submit(xmap(factorials, [2, 2000]))
    done = local.command("callers.result", job.id)

    assert done.stdout.startswith("[2, 33162750924506332411")
    assert len(done.stdout) == len("[2, ]\n") + 5736


def test_the_three_ways_of_ten_jobs_give_the_same(local: Local) -> None:
    done = local.command("callers.parallel", "--seconds", "0.2")

    assert (done.stderr, done.returncode) == ("", 0)
    for way in ("series", "group", "chord"):
        assert re.search(rf"{way} +│ +100 │ +\d+\.\d\d s", done.stdout)


def test_a_terminal_shows_how_far_each_of_the_three_ways_is(local: Local) -> None:
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", on_a_terminal(local, *PARALLEL, "0.3"))

    for way in ("series", "group", "chord"):
        counts = [int(count) for count in re.findall(rf"{way} [ ━╸╺]* (\d+)/10", shown)]
        assert counts[0] < counts[-1] == 10


def test_a_task_unknown_to_the_queues_workers_is_an_error(local: Local) -> None:
    submitted = local.command("callers.submit", "add.tasks.add", "4", "6", "--queue", "factorial")
    done = local.command("callers.result", submitted.stdout.strip())

    assert (done.stderr, done.returncode) == ("error: NotRegistered: add.tasks.add\n", 1)


def test_inspect_shows_a_job_that_runs(local: Local) -> None:
    with local.client() as client:
        job = client.submit("add.tasks.longtime_add", 4, 6, 60)
        eventually("the job runs", lambda: job.state == "STARTED")
        done = local.command("callers.inspect", "--timeout", "5")
        job.revoke(terminate=True)
        eventually("it ended", lambda: job.state == "REVOKED")

    assert job.id in done.stdout
    for family in FAMILIES:
        assert re.search(rf"{family}@\S+ +│ {family} ", done.stdout)


@pytest.mark.parametrize(
    "command",
    [("callers.add", "4", "6"), ("celery_streams", "dead", "list")],
    ids=lambda each: each[0],
)
def test_a_wrong_password_is_refused_at_once(
    local: Local, tmp_path: Path, command: tuple[str, ...]
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    done = local.command(*command, REDIS_PASSWORD_FILE=str(wrong))

    assert done.returncode == 1
    assert "refuses the password" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unreachable_redis_is_one_line(local: Local) -> None:
    done = local.command("callers.add", "4", "6", "--timeout", "1", REDIS_PORT="1")

    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach the broker at redis://")
    assert "Is the cluster running, and REDIS_PORT set to its port?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_redis_that_hangs_does_not_hang_the_caller(own_local: Local) -> None:
    (server,) = own_local.running("server")
    server.signal(signal.SIGSTOP)
    try:
        done = own_local.command("callers.add", "4", "6", "--timeout", "2", seconds=60)
    finally:
        server.signal(signal.SIGCONT)

    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach the broker")
    assert len(done.stderr.splitlines()) == 1


def test_a_redis_that_hangs_later_does_not_hang_the_caller(own_local: Local) -> None:
    (server,) = own_local.running("server")
    program = (
        "from callers.client import Client\n"
        "with Client() as client:\n"
        "    client.call('add.tasks.add', 4, 6)\n"
        "    print('connected', flush=True)\n"
        "    input()\n"
        "    client.call('add.tasks.add', 4, 6, timeout=2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=own_local.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as caller:
        assert caller.stdout
        assert caller.stdout.readline() == "connected\n"
        server.signal(signal.SIGSTOP)
        try:
            _, errors = caller.communicate("\n", timeout=30)
        finally:
            server.signal(signal.SIGCONT)

    assert errors.splitlines()[-1].startswith("cluster.errors.Unreachable")


@pytest.mark.parametrize("command", ["inspect", "result", "submit"])
def test_an_unreachable_broker_is_one_line_of_every_command(local: Local, command: str) -> None:
    words = {"result": ["x", "--timeout=1"], "submit": ["add.tasks.add", "4", "6"]}.get(command, [])
    done = local.command(f"callers.{command}", *words, REDIS_PORT="1", seconds=60)

    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_shows_the_lengths_of_queues_without_any_worker(server_only: Local) -> None:
    with server_only.client() as client:
        for _ in range(3):
            client.submit("add.tasks.add", 4, 6)
        for _ in range(2):
            client.submit(client.signature("add.tasks.add", 4, 6).set(countdown=600))
    done = server_only.command("callers.inspect")

    assert (done.stderr, done.returncode) == ("no worker answered within 1 s\n", 0)
    (row,) = [line for line in done.stdout.splitlines() if re.search(r"\badd\b", line)]
    assert re.findall(r"\d+", row) == ["3", "2", "0", "0", "0"]


def test_inspect_counts_a_job_that_runs_neither_as_waiting_nor_as_done(
    server_only: Local,
) -> None:
    with (
        server_only.client() as client,
        server_only.own_worker("local", "worker", "add", ADD_CONCURRENCY="1"),
    ):
        job = client.submit("add.tasks.longtime_add", 1, 2, 60)
        eventually("it runs", lambda: client.app.AsyncResult(job.id).state == "STARTED")
        done = server_only.command("callers.inspect")
        job.revoke(terminate=True)

    queue, worker, _ = [line for line in done.stdout.splitlines() if re.search(r"\badd", line)]
    assert re.findall(r"\d+", queue) == ["0", "0", "1", "0", "1"]
    assert re.findall(r"[│|] *(\d+) ", worker)[:3] == ["1", "1", "0"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[bold]add[/bold]", "[bold]add[/bold]"),
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("two\nlines\r\u2028\u202e", r"two\nlines\r\u2028\u202e"),
    ],
)
def test_inspect_shows_names_as_text(name: str, shown: str) -> None:
    console = Console(width=200, file=io.StringIO(), force_terminal=True)
    job = {"id": name, "name": name, "args": name, "time_start": 1.0}
    stats = {name: {"uptime": 1, "pool": {"max-concurrency": 1}, "total": {}}}
    with console.capture() as capture:
        console.print(jobs_table({name: [job]}))
        console.print(workers_table(stats, {}, {name: [{"name": name}]}))

    assert capture.get().count(shown) == 6
    assert name not in capture.get().replace(shown, "")


@pytest.mark.parametrize(
    "command", [("add.worker", "4"), ("add.worker", "--pool", "threads"), ("local", "worker")]
)
def test_a_worker_that_is_started_wrongly_says_so_in_one_line(
    server_only: Local, command: tuple[str, ...]
) -> None:
    done = server_only.command(*command)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_missing_worker_is_one_line(server_only: Local) -> None:
    done = server_only.command("callers.add", "4", "6", "--timeout", "3")

    assert done.returncode == 1
    assert "no worker consumes the queue 'add'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
