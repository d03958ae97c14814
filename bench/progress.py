"""The progress of a measurement, printed as lines, and a record of its samples."""

import json
import os
import signal
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from local.server import ROOT

FOLDER = ROOT / ".bench"


class Progress:
    """The record of a measurement: removed when it is complete, kept if it is interrupted.

    Each entry is a line of JSON that is written at once, so that a crash loses none.
    """

    def __init__(self, name: str, folder: Path = FOLDER) -> None:
        now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.file: Path | None = folder / f"{name}-{now}-{os.getpid()}.jsonl"
        try:
            folder.mkdir(exist_ok=True)
            self.file.touch()
        except OSError:  # a container's own folders may be read-only
            self.file = None
        self._count = 0
        self._at_exit = ExitStack()

    def __enter__(self) -> Self:
        # Each of them raises KeyboardInterrupt; those that nohup or a shell ignores stay ignored.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before = signal.signal(number, signal.default_int_handler)
                self._at_exit.callback(signal.signal, number, before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._at_exit.close()
        if kind and self._count:
            kept = f", kept in {self.file}" if self.file else ""
            _write(f"incomplete: {self._count} measurement(s) were made{kept}")
            return
        if kind and issubclass(kind, KeyboardInterrupt):
            _write("incomplete: nothing was measured yet")
        if self.file:
            self.file.unlink(missing_ok=True)

    def report(self, text: str) -> None:
        """Print a line, except on a terminal, which has progress bars."""
        if not sys.stderr.isatty():
            _write(f"{datetime.now().astimezone():%H:%M:%S} {text}")

    def keep(self, text: str, **measured: Any) -> None:
        """Record and print a measurement."""
        self._count += 1
        self.report(text)
        if self.file:
            with self.file.open("a") as file:
                file.write(json.dumps({"measured": text, **measured}) + "\n")


def _write(line: str) -> None:
    click.echo(line, err=True)
