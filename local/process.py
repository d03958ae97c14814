"""Child processes whose output lines are printed with their names, and the end of any process."""

import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep

import click
import psutil

#: Width of the name that prefixes each line, in characters.
NAME_WIDTH = 11
#: Interval between checks of processes, in seconds.
POLL_INTERVAL = 0.05

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
        self.pid = self._popen.pid
        #: The same process, for `end`.
        self.handle = psutil.Process(self.pid)
        assert self._popen.stdin
        # A process that has ended reads nothing, as its exit status shows.
        with suppress(BrokenPipeError), self._popen.stdin as pipe:
            pipe.write(stdin)
        self._reader = threading.Thread(target=self._show_output, daemon=True)
        self._reader.start()

    def _show_output(self) -> None:
        if self._popen.stdout is None:
            return
        with self._popen.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                show(self.name, self.lines[-1])

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


def is_alive(process: psutil.Process) -> bool:
    """Return True if a process has not ended, whether or not its parent has noticed the end."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end(
    processes: Sequence[psutil.Process],
    first_signal: int,
    seconds: float,
    is_hurried: Callable[[], bool] = lambda: False,
) -> list[psutil.Process]:
    """End processes by a signal, then by SIGQUIT, then by SIGKILL; return those it killed.

    After `seconds`, or as soon as `is_hurried`, SIGQUIT makes workers release their jobs.
    """
    left = list(processes)
    for number, limit in ((first_signal, seconds), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
        left = [process for process in left if is_alive(process)]
        killed = left
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = monotonic() + limit
        while any(map(is_alive, left)) and monotonic() < deadline:
            if number == first_signal and is_hurried():
                break
            sleep(POLL_INTERVAL)
    return killed
