"""The runner of all commands: an error is one line, also in a subcommand."""

import subprocess
import sys

import pytest

from tests.support.repo import ROOT

PROGRAM = """
import sys
import click
from celery_streams.cli import errors_in_one_line, run

@click.group()
def main():
    pass

@main.command()
@click.argument("error")
def fail(error):
    raise eval(error)

@main.command()
def work():
    print("done")

with errors_in_one_line():
    run(main)
"""


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        ("ValueError('two\\nlines')", 1, "two lines"),
        ("ValueError('\\x1b[2J')", 1, r"\x1b[2J"),
        ("ValueError()", 1, "ValueError"),
        ("KeyError('name')", 1, "KeyError: name"),
        ("EOFError('words')", 1, "words"),
        ("BrokenPipeError(32, 'words')", 1, "[Errno 32] words"),
        ("click.exceptions.Exit(0)", 1, "0"),
        ("click.Abort('words')", 1, "words"),
        ("click.ClickException('words')", 1, "words"),
        ("click.UsageError('Words.')", 2, "Words (see --help)"),
        ("KeyboardInterrupt()", 130, "stopped"),
    ],
)
def test_an_error_of_a_subcommand_is_one_line(error: str, status: int, line: str) -> None:
    done = run("fail", error)

    assert (done.stdout, done.stderr.lstrip(), done.returncode) == ("", f"error: {line}\n", status)


@pytest.mark.parametrize(
    ("argv", "status", "line"),
    [
        (("unheard",), 2, "No such command 'unheard' (see --help)"),
        (("fail",), 2, "Missing argument 'ERROR' (see --help)"),
        (("work", "--unheard"), 2, "No such option '--unheard' (see --help)"),
    ],
)
def test_wrong_usage_is_one_line(argv: tuple[str, ...], status: int, line: str) -> None:
    done = run(*argv)

    assert (done.stdout, done.stderr, done.returncode) == ("", f"error: {line}\n", status)


def test_a_group_without_a_command_explains_itself() -> None:
    done = run()

    assert done.returncode == 2
    assert "Commands:\n  fail\n  work\n" in done.stderr


def test_a_command_that_works_prints_its_output() -> None:
    done = run("work")

    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
