"""The command of a family's caller, for families that need no command of their own."""

import sys
from typing import Any

import click

from callers import contracts
from callers.command import MAX_ELEMENTS_SHOWN, NEGATIVE_NUMBERS, call, show, timeout_option
from callers.submit import parse_arguments


def command(task: str) -> click.Command:
    """Return a command that runs a task and prints its value; its help is from the contract.

    Without arguments it runs the task's first example.
    """
    described = contracts.described(task)

    @click.command(help=_help(task, described), context_settings=NEGATIVE_NUMBERS)
    @click.argument("words", nargs=-1, metavar=" ".join(map(_metavar, described["parameters"])))
    @timeout_option
    def run_task(words: tuple[str, ...], timeout: float) -> None:
        if words:
            args, kwargs = parse_arguments(words)
        else:
            args, kwargs = _example(task, described)
        value = call(task, *args, timeout=timeout, **kwargs)
        show(value, MAX_ELEMENTS_SHOWN if sys.stdout.isatty() else None)

    return run_task


def _help(task: str, described: dict[str, Any]) -> str:
    example = "" if "example" not in described else " Without arguments, run its first example."
    return (
        f"{described['summary']}\n\n"
        f"The task is {task}. An argument is JSON or plain text; NAME=VALUE passes one by "
        f"name.{example}"
    )


def _metavar(parameter: dict[str, Any]) -> str:
    name = parameter["name"].upper()
    return name if parameter["required"] else f"[{name}]"


def _example(task: str, described: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    if "example" not in described:
        raise click.UsageError(f"the contract of {task} has no example: name the arguments")
    return described["example"]["args"], described["example"]["kwargs"]
