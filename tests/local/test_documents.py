"""The programs and commands of the documents, run as they are printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from local.server import ROOT
from tests.support.local import Local
from tests.support.repo import read

PRINTED = {
    "README.md": "10\n10\n3628800\n",
    "docs/values.md": "(4000, 4000)\n",
}


def blocks(document: str, language: str) -> list[str]:
    """Return a document's code blocks in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", read(document), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


def commands(document: str) -> list[tuple[str, str]]:
    """Return a document's commands, each with its printed output."""
    (block,) = blocks(document, "console")
    return [
        (command, printed)
        for command, _, printed in (part.partition("\n") for part in block.split("$ ")[1:])
        if "docker" not in command
    ]


def shell(local: Local, command: str) -> str:
    """Run a command in this folder, and return its output."""
    # In CI, the environment is in another folder.
    command = command.replace(".venv/bin/python", shlex.quote(sys.executable))
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=local.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    ).stdout


@pytest.mark.parametrize("document", PRINTED)
def test_the_program_of_a_document(local: Local, document: str) -> None:
    (program,) = blocks(document, "python")
    printed = shell(local, f".venv/bin/python -c {shlex.quote(program)}")

    assert printed == PRINTED[document]


def test_the_commands_of_the_readme(local: Local) -> None:
    job_id = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
    submitted = ""
    for command, printed in commands("README.md"):
        seen = shell(local, job_id.sub(submitted, command))
        if job_id.fullmatch(printed.strip()):
            assert job_id.fullmatch(seen.strip()), command
            submitted = seen.strip()
        else:
            assert seen == printed, command
    assert submitted


def test_the_commands_of_the_page_of_values(local: Local, tmp_path: Path) -> None:
    for command, printed in commands("docs/values.md"):
        assert shell(local, command.replace("/tmp/", f"{tmp_path}/")) == printed, command  # noqa: S108
    assert len([*tmp_path.glob("*.npy")]) == 2
