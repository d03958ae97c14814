"""Pins the packages of all requirements files, and what these need, in `constraints.txt`."""

import subprocess
import sys
from pathlib import Path

from develop.tree import ROOT

#: The oldest version of Python that the project runs on.
OLDEST_PYTHON = "3.11"


def pin(*, upgrade: bool = False) -> list[str]:
    """Write `constraints.txt`, and return what changed, as lines that begin with + or -.

    Versions stay as they are, unless `upgrade`. Raise ValueError, with uv's words, for requirements
    that no versions meet.
    """
    file = ROOT / "constraints.txt"
    before = file.read_text().splitlines()
    requirements = sorted(
        str(path.relative_to(ROOT))
        for pattern in ("*/requirements.txt", "deploy/*/requirements.txt")
        for path in ROOT.glob(pattern)
    )
    command = [
        *(str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--universal"),
        *("--python-version", OLDEST_PYTHON, "--no-header", "--no-annotate"),
        *(["--upgrade"] if upgrade else []),
        *("--output-file", file.name, *requirements),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(" ".join(done.stderr.split()))
    after = file.read_text().splitlines()
    return [
        *(f"-{line}" for line in before if line not in after),
        *(f"+{line}" for line in after if line not in before),
    ]
