"""The rows of docs/capabilities.md, and the check of their commands."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.repo import ROOT, read

RUNNING, BARE, DOCKER = "On a running cluster", "On a bare machine", "On Docker"


class Row(NamedTuple):
    """One capability, the command that shows it, and the pattern of what it prints."""

    capability: str
    command: str
    prints: str

    def __str__(self) -> str:
        return self.capability.replace(" ", "-")


def rows(section: str) -> list[Row]:
    """Return the rows of one of the page's tables."""
    text = read("docs/capabilities.md").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [
        Row(*cells)
        for cells in re.findall(r"^\| (.+?) \| `(.+)` \| `(.+)` \|$", text, re.MULTILINE)
    ]


def count_of_rows() -> int:
    """Return the number of rows of the page, in any format."""
    lines = read("docs/capabilities.md").splitlines()
    return sum(line.startswith("| ") and not line.startswith("| capability") for line in lines)


def show(row: Row, environment: Mapping[str, str], seconds: float = 150) -> None:
    """Run a row's command, and fail if it does not print the row's text."""
    done = subprocess.run(
        ["bash", "-c", row.command],
        cwd=ROOT,
        env={**environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    printed = " ".join(done.stdout.split())
    pattern = ".*".join(map(re.escape, row.prints.split("…"))).replace(r"\ .*", r"\ ?.*")
    assert re.fullmatch(pattern, printed), f"{row.command}\nprints {done.stdout}\nnot {row.prints}"
    fails = "error: " in row.prints or "DeadLetter: " in row.prints
    assert (done.returncode != 0) == fails, f"{row.command}\nends with {done.returncode}"
