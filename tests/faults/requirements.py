"""The requirements of the faults of the compose stack."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: The folder of the libraries of Debian's packages.
LIBRARIES = Path("/usr/lib")


def faketime() -> Path | None:
    """Return the library of Debian's package faketime, which shifts a process's clock."""
    return next(iter(sorted(LIBRARIES.glob("*/faketime/libfaketimeMT.so.1"))), None)


def missing() -> Iterator[str]:
    """Yield the missing requirements."""
    try:
        subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        yield "a Docker engine that answers"
    if os.geteuid():
        yield "root"
    # They drop packets in a container's network.
    yield from (tool for tool in ("nsenter", "iptables") if not shutil.which(tool))
    if not faketime():
        yield "Debian's package faketime"
