"""The callers' commands: what they print, and the one line they print when it goes wrong."""

import hashlib
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from local.server import ROOT
from tests.families import FACTORIAL_DIGESTS, FAMILIES, product
from tests.local.local import Local


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
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "callers.factorial", "20000"],
        cwd=ROOT,
        env={**local.env, "TERM": "xterm"},
        stdout=end,
        stderr=end,
    ):
        os.close(end)
        shown = b""
        with suppress(OSError):  # Linux says EIO when the other end is closed
            while some := os.read(terminal, 4096):
                shown += some
    os.close(terminal)

    assert "waiting for factorial.tasks.factorial" in shown.decode()
    assert shown.decode().rstrip().endswith("00000000 (77338 digits)")


@pytest.mark.parametrize("n", FACTORIAL_DIGESTS)
def test_all_digits_go_into_a_pipe(local: Local, n: int) -> None:
    done = local.command("callers.factorial", str(n))

    assert hashlib.sha256(done.stdout.strip().encode()).hexdigest() == FACTORIAL_DIGESTS[n]


def test_a_matrix_goes_into_a_file(local: Local, tmp_path: Path) -> None:
    file = tmp_path / "c.npy"
    done = local.command("callers.mat_mul", "20", "30", "--seed", "7", "--out", str(file))

    assert (done.stdout, done.returncode) == ("", 0)
    np.testing.assert_allclose(np.load(file), product(20, 30, 7))


@pytest.mark.parametrize(
    ("argv", "status", "error"),
    [
        (("callers.add", "4"), 2, "Missing argument 'Y'."),
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
        (("callers.factorial",), 2, "Missing argument 'N'."),
        (("callers.factorial", "2.5"), 2, "'2.5' is not a whole number"),
        (("callers.factorial", "nan"), 2, "'nan' is not a whole number"),
        (("callers.factorial", "-5"), 1, "n must be at least 0, not -5"),
        (("callers.factorial", "1000001"), 1, "at most 1000000 (FACTORIAL_MAX_N)"),
        (("callers.mat_mul", "5"), 2, "Missing argument 'N'."),
        (("callers.mat_mul", "0", "5"), 1, "m must be at least 1, not 0"),
        (("callers.mat_mul", "5", "-5"), 1, "n must be at least 1, not -5"),
        (("callers.mat_mul", "100000", "100000"), 1, "(MAT_MUL_MAX_BYTES)"),
        (("callers.mat_mul", "5", "5", "--seed", "x"), 2, "'x' is not a whole number"),
        (("callers.mat_mul", "5", "5", "--out", "/nowhere/c.npy"), 2, "no folder '/nowhere'"),
        (("callers.mat_mul", "5", "5", "--out", "/"), 2, "is a directory"),
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


@pytest.mark.parametrize("module", [f"callers.{family}" for family in FAMILIES])
def test_a_command_explains_itself(local: Local, module: str) -> None:
    done = local.command(module, "--help")

    assert done.returncode == 0
    assert "--timeout SECONDS" in done.stdout


def test_a_wrong_password_is_refused_at_once(local: Local, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    done = local.command("callers.add", "4", "6", REDIS_PASSWORD_FILE=str(wrong))

    assert done.returncode == 1
    assert "refuses the password" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_redis_is_said_in_one_line(local: Local) -> None:
    done = local.command("callers.add", "4", "6", "--timeout", "1", REDIS_PORT="1")

    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach the broker at redis://")
    assert len(done.stderr.splitlines()) == 1


def test_a_redis_that_hangs_does_not_hang_the_caller(own_local: Local) -> None:
    (server,) = own_local.running("server")
    server.signal(signal.SIGSTOP)
    try:
        # Twenty seconds are for a slow machine: the caller's own deadline is two.
        done = own_local.command("callers.add", "4", "6", "--timeout", "2", seconds=20)
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


def test_no_worker_is_said_in_one_line(server_only: Local) -> None:
    done = server_only.command("callers.add", "4", "6", "--timeout", "1")

    assert done.returncode == 1
    assert "no worker consumes the queue 'add'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
