"""Tasks whose calls travel in bundles."""

import os
import signal
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Reject


def fork() -> str:
    """Go on in two processes."""
    os.fork()
    return "forked"


def change_handlers() -> str:
    """Ignore the signals by which the worker's main process tells this one something."""
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    return "changed"


def close_files() -> str:
    """Close all file descriptors but those of the log."""
    os.closerange(3, 4096)
    return "closed"


def block() -> int:
    """Compute for hours, without an instruction of Python's in which it would notice a signal."""
    return sum(range(10**15))


def allocate() -> int:
    """Allocate more memory than there is."""
    return len(bytearray(2**60))


def fail(error: BaseException) -> Callable[[], None]:
    """Return a function that raises an error."""

    def fails() -> None:
        raise error

    return fails


_KINDS: dict[str, Callable[[], Any]] = {
    "text": lambda: "text",
    "complex": lambda: 3 + 1j,
    "long": lambda: 10**5000,
    "large": lambda: "x" * 2**20,
    "tuple": lambda: (1, (2, 3)),
    "decimal": lambda: Decimal("1.5"),
    "object": object,
    "marked": lambda: {"__type__": "int", "__value__": 7},
    "infinite": lambda: [float("inf"), None],
    "error": fail(ValueError("wrong")),
    "exit": fail(SystemExit(3)),
    "memory": fail(MemoryError("none left")),
    "allocate": allocate,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leave": lambda: os._exit(3),
    "fork": fork,
    "handlers": change_handlers,
    "close": close_files,
    "reject": fail(Reject("no", requeue=False)),
}
KINDS = tuple(_KINDS)


@shared_task
def do(kind: str, value: Any = None) -> Any:
    """Do something unusual, or return the value."""
    return _KINDS[kind]() if kind in _KINDS else value


@shared_task
def ignore() -> None:
    """End without a result."""
    raise Ignore


@shared_task(soft_time_limit=1)
def sleep_softly(seconds: float) -> float:
    """Sleep, for a second at most."""
    time.sleep(seconds)
    return seconds


@shared_task(time_limit=1)
def compute(value: Any) -> Any:
    """Return the value, or compute for ever."""
    return block() if value == "block" else value


@shared_task
def sleep(seconds: float) -> int:
    """Sleep, and return the process' id."""
    time.sleep(seconds)
    return os.getpid()


@shared_task(bind=True)
def own_id(self: Any) -> str:
    """Return the job's id."""
    return str(self.request.id)


@shared_task(rate_limit="20/s")
def limited(value: int) -> int:
    """Return the value, twenty times a second."""
    return value


@shared_task
def fail_once(trace: str, value: int) -> int:
    """Fail with a transient error the first time."""
    if not Path(trace, str(value)).exists():
        Path(trace, str(value)).touch()
        raise ConnectionError("not yet")
    return value


@shared_task
def count_up(trace: str, value: int) -> int:
    """Note each run of a call in a file."""
    with Path(trace, "runs").open("a") as file:
        file.write(f"{value}\n")
    return value


@shared_task
def calls_directly(value: int) -> Any:
    """Call another task as a plain function."""
    return do("complex") if value else do("value", value)


@shared_task
def remember(value: int) -> list[int]:
    """Return all values so far of this bundle, in one list."""
    if not value:
        _remembered.clear()
    _remembered.append(value)
    return _remembered


_remembered: list[int] = []

#: The routes of these tasks.
ROUTES = {
    f"{__name__}.{name}": {"queue": "add"}
    for name, each in [*vars().items()]
    if hasattr(each, "delay")
}
