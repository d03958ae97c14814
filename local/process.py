"""A child process whose output lines are printed with its name as a prefix."""

import subprocess
import threading
from collections.abc import Mapping, Sequence

import click

#: Width of the name that prefixes each line, in characters.
NAME_WIDTH = 11

_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")
_screen = threading.Lock()
_colour_of: dict[str, str] = {}


def show(name: str, line: str) -> None:
    """Print a line with a name as its prefix, in colour on a terminal."""
    with _screen:
        colour = _colour_of.setdefault(name, _COLOURS[len(_colour_of) % len(_COLOURS)])
        click.echo(f"{click.style(f'{name:<{NAME_WIDTH}}|', fg=colour)} {line}")


class Process:
    """A program in a separate session, so that Ctrl-C reaches only the parent process.

    With `draws`, its output goes to the terminal unchanged, as a progress bar requires.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        stdin: str = "",
        *,
        draws: bool = False,
    ) -> None:
        self.name = name
        self.lines: list[str] = []
        self._popen = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.PIPE,
            stdout=None if draws else subprocess.PIPE,
            stderr=None if draws else subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._feed(stdin)
        self._reader = threading.Thread(target=self._show_output, daemon=True)
        self._reader.start()

    def _feed(self, text: str) -> None:
        assert self._popen.stdin
        try:
            with self._popen.stdin as pipe:
                pipe.write(text)
        except BrokenPipeError:
            pass  # the process has ended, as its exit status shows

    def _show_output(self) -> None:
        if self._popen.stdout is None:
            return
        with self._popen.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                show(self.name, self.lines[-1])

    @property
    def pid(self) -> int:
        """The process id of the program itself, not of its children."""
        return self._popen.pid

    @property
    def exit_status(self) -> int | None:
        """The exit status; None while it runs, -N if signal N ended it."""
        return self._popen.poll()

    def wait(self, seconds: float) -> bool:
        """Wait for the end and the last line of output; return True if the process ended."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(seconds)
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the program only: Celery's pool processes must not receive it."""
        self._popen.send_signal(number)
