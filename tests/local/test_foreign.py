"""Stock Celery programs that use only the broker's URL."""

import subprocess
import sys
from pathlib import Path

import pytest

from callers.client import Client
from tests.support.families import FAMILIES

#: The number of workers.
COUNT = len(FAMILIES)
#: A program in another folder, which cannot import the cluster's modules.
STOCK = """
import sys
from celery import Celery, chain, chord, group
app = Celery(broker=sys.argv[1], backend=sys.argv[1])

def add(*args, **options):
    return app.signature("add.tasks.add", args, queue="add", **options)

def tsum():
    return app.signature("add.tasks.tsum", queue="add")

print({printed})
"""


def stock(client: Client, folder: Path, printed: str, seconds: float = 60) -> str:
    """Run a stock program and return its output."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", STOCK.replace("{printed}", printed), _url(client)],
        cwd=folder,
        env={},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _url(client: Client) -> str:
    url: str = client.app.conf.result_backend
    return url


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("add(4, 6).delay().get(timeout=20)", "10"),
        ("group(add(i, i) for i in range(100))().get(timeout=20) == [*range(0, 200, 2)]", "True"),
        ("chain(add(4, 6), add(5))().get(timeout=20)", "15"),
        ("chord([add(1, 2), add(3, 4)], tsum())().get(timeout=20)", "10"),
        ("add(4, 6).apply_async(countdown=3).get(timeout=20)", "10"),
        ("add(4, 6).apply_async(priority=9).get(timeout=20)", "10"),
        ("bool(app.control.ping(timeout=20, limit=1))", "True"),
        (f"'add' in str(app.control.inspect(timeout=20, limit={COUNT}).active_queues())", "True"),
    ],
)
def test_a_stock_program_is_served(
    client: Client, tmp_path: Path, printed: str, expected: str
) -> None:
    assert stock(client, tmp_path, printed) == expected


def test_a_stock_program_receives_an_error(client: Client, tmp_path: Path) -> None:
    printed = "type(add('x', 4).delay().get(timeout=20, propagate=False)).__name__"

    assert stock(client, tmp_path, printed) == "TypeError"


def test_results_can_be_read_by_any_stock_program(client: Client, tmp_path: Path) -> None:
    job = client.submit("add.tasks.add", 4, 6)
    assert client.get(job) == 10

    assert stock(client, tmp_path, f"app.AsyncResult({job.id!r}).get(timeout=20)") == "10"
