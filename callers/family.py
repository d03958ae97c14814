"""The command of a family's caller, for families that need no command of their own."""

import sys
from typing import Any

import click

from callers import contracts
from callers.command import MAX_ELEMENTS_SHOWN, NEGATIVE_NUMBERS, call, show, timeout_option
from callers.submit import parse_arguments


def command(family: str) -> click.Command:
    """Return a command that runs a family's first task and prints its value.

    Its help comes from the task's contract. Without arguments it runs the task's first example.
    """
    task = contracts.first_task(family)
    described = contracts.described(task)

    @click.command(help=_help(task, described), context_settings=NEGATIVE_NUMBERS)
    @click.argument("words", nargs=-1, metavar=" ".join(map(_metavar, described["parameters"])))
    @timeout_option
    def run_task(words: tuple[str, ...], timeout: float) -> None:
        if words:
            args, kwargs = parse_arguments(words)
        else:
            args, kwargs = _example(task, described)
        try:
            contracts.check(task, args, kwargs)
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from None
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
    name = parameter["name"]
    value = f"{name}={name.upper()}" if parameter["kind"] == "KEYWORD_ONLY" else name.upper()
    if parameter["kind"].startswith("VAR_"):
        return f"[{value}]..."
    return value if parameter["required"] else f"[{value}]"


def _example(task: str, described: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    if "example" not in described:
        raise click.UsageError(f"the contract of {task} has no example: name the arguments")
    return described["example"]["args"], described["example"]["kwargs"]
