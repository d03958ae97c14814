"""The progress of a measurement, printed as lines: drawing meanwhile would disturb it."""

import signal
from collections.abc import Iterator
from datetime import datetime

import click


def report(text: str) -> None:
    """Print a line with the time: what is measured now, or what was measured."""
    click.echo(f"{datetime.now().astimezone():%H:%M:%S} {text}", err=True)


def rounds(what: str, count: int) -> Iterator[int]:
    """Yield the number of each round, and report it."""
    for number in range(count):
        report(f"{what}, {number + 1} of {count}")
        yield number


def stop_like_ctrl_c() -> None:
    """Have signals raise KeyboardInterrupt; those that nohup or a shell ignores stay ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
