"""A Celery program of the tests and its worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.repo import ROOT

#: Ours, which the program's configuration names, and Celery's.
OURS = "ours"
ALONE = ("--without-gossip", "--without-mingle")


@contextmanager
def program(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a program for this server."""
    monkeypatch.setenv("PLAIN_URL", url)
    sys.modules.pop(name, None)
    module: Any = import_module(name)

    yield module
    backend: Any = module.app.backend
    backend.result_consumer.stop()
    backend.client.connection_pool.disconnect()
    module.app.close()


@contextmanager
def worker(
    program: ModuleType, log: Path, pool: str, *arguments: str, options: Sequence[str] = ALONE
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a worker, and stop it by SIGTERM."""
    command = ["-m", "celery", "-A", program.__name__, "worker", "-c", "2"]
    # By `-P prefork`, its default, Celery understands the pool that the program names.
    named = {} if pool == OURS else {"PLAIN_POOL": pool}
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, *command, *options, *arguments],
            cwd=ROOT,
            env={**os.environ, **named, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
