"""What the faults of the compose stack need of a machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: Where Debian's packages have libraries.
LIBRARIES = Path("/usr/lib")


def faketime() -> Path | None:
    """Return the library that shifts a process's clock, of Debian's package faketime."""
    return next(iter(sorted(LIBRARIES.glob("*/faketime/libfaketimeMT.so.1"))), None)


def missing() -> Iterator[str]:
    """Yield what is not there."""
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
