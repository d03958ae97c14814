"""The worker's command line and its checks."""

import os
import socket
import subprocess
import sys

import pytest

from celeryconfig import families
from cluster.worker import options, worker_app
from tests.support.families import FAMILIES


def test_a_worker_is_bound_to_its_queue_under_a_name_of_its_own() -> None:
    chosen = options(worker_app("add"))

    assert chosen["queues"] == ["add"]
    assert chosen["hostname"] == f"add@{socket.gethostname()}.{os.getpid()}"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_concurrency_is_the_familys(family: str) -> None:
    assert options(worker_app(family))["concurrency"] == families[family].concurrency or 1


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ADD_CONCURRENCY", "all"),
        ("ADD_CONCURRENCY", "0"),
        ("TASK_TIME_LIMIT", "1.5"),
        ("JOB_LEASE", "-1"),
        ("REDIS_PORT", "70000"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_one_line(variable: str, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "add.worker"],
        env={**os.environ, variable: text},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {variable} must be ")
    assert done.stderr.endswith(f", not '{text}'\n")
    assert len(done.stderr.splitlines()) == 1


#: Runs a worker that prints how it was started, and exits with a status that it chooses.
RUN = """
import gc, sys
from add.worker import app
from cluster.worker import run

class Worker(app.Worker):
    exitcode = 3

    def start(self):
        are_most_left_out = gc.get_freeze_count() > len(gc.get_objects())
        print(gc.isenabled(), are_most_left_out, "celery.bin.celery" in sys.modules)

app.Worker = Worker
run(app)
"""


def test_a_worker_loads_no_command_line_and_looks_for_no_garbage_in_what_it_loads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("True True False\n", 3), done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("WORKER_HANG_TIMEOUT", "0", "a whole number from 4 to 1000000000, not '0'"),
        ("WORKER_HANG_TIMEOUT", "1e9", "a whole number from 4 to"),
        ("ADD_CONCURRENCY", "99999999", "a whole number from 1 to 1000, not '99999999'"),
        ("MAX_MESSAGE_BYTES", "1", "a whole number from 65536 to"),
        ("RESULT_EXPIRES", "9" * 5000, "a whole number from 1 to 1000000000, not a str"),
        ("LOG_LEVEL", "loud", "one of INFO, DEBUG, WARNING, ERROR, CRITICAL, not 'loud'"),
    ],
)
def test_a_setting_out_of_bounds_is_one_line(variable: str, value: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "add.worker"],
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {variable} must be {words}")
    assert done.stderr.count("\n") == 1
