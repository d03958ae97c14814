"""A child process of a measurement: its work does not delay the process that measures."""

import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

from bench.calls import TIMEOUT
from cluster.errors import ClusterError

Work = Callable[..., None]


class Failed(NamedTuple):
    """The message that a process sends before it ends with an error."""

    why: str


class Child:
    """A fresh process that runs `work(pipe, *args)`; `receive` returns the values that it sends.

    The work ends when it receives a value, or when the pipe is closed.
    """

    def __init__(self, work: Work, *args: Any) -> None:
        context = get_context("spawn")
        self._pipe, self._child_pipe = context.Pipe()
        arguments = (work, self._child_pipe, args)
        self._process = context.Process(target=_run, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._child_pipe.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()
        if error is None:
            self._process.join(TIMEOUT)
        self._process.kill()
        self._process.join()

    def send(self, value: Any) -> None:
        """Send a value to the process."""
        self._pipe.send(value)

    def has_sent(self) -> bool:
        """Return True if there is a value to receive."""
        return self._pipe.poll()

    def receive(self) -> Any:
        """Wait for the next value; raises ClusterError if the process ended instead."""
        try:
            value = self._pipe.recv()
        except EOFError:
            raise ClusterError("a process of the measurement ended early") from None
        if isinstance(value, Failed):
            raise ClusterError(value.why)
        return value


def _run(work: Work, pipe: "Connection[Any, Any]", args: tuple[Any, ...]) -> None:
    # Ctrl-C ends the parent, and the closed pipe then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(pipe, *args)
    except Exception as error:  # noqa: BLE001 - the parent reports it
        with suppress(OSError):
            pipe.send(Failed(str(error) or type(error).__name__))
