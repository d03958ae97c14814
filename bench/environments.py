"""The peers' virtual environments: one each, as they need different versions of packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import click

from bench.systems import System
from cluster.errors import ClusterError
from local.server import ROOT

FOLDER = ROOT / ".venv-bench"


def argv(system: System, line: str) -> list[str]:
    """Return the arguments of a command line, with the full path of its program."""
    program, *arguments = line.split()
    return [str(_programs(system) / program), *arguments]


def _programs(system: System) -> Path:
    return (
        FOLDER / system.module / "bin" if system.needs_environment else Path(sys.executable).parent
    )


def _interpreter(system: System) -> str:
    """Return the Python that makes a system's environment; raises ClusterError."""
    if not system.python or system.python == "{}.{}".format(*sys.version_info):
        return sys.executable
    name = f"python{system.python}"
    of_pyenv = (Path.home() / ".pyenv" / "versions").glob(f"{system.python}.*/bin/{name}")
    found = [*of_pyenv, shutil.which(name)]
    if not found[0]:
        raise ClusterError(f"{system.title} needs {name}, which is not installed")
    return str(found[0])


def make(system: System) -> None:
    """Create or update a system's environment if its requirements have changed.

    Raises ClusterError if the packages cannot be installed.
    """
    if not system.needs_environment:
        return
    requirements = ROOT / "bench" / "peers" / f"{system.module}.txt"
    made = FOLDER / system.module / "requirements.txt"
    if made.exists() and made.read_text() == requirements.read_text():
        return
    click.echo(f"installing {system.module} into {made.parent.relative_to(ROOT)}", err=True)
    python = _programs(system) / "python"
    try:
        subprocess.run([_interpreter(system), "-m", "venv", "--clear", made.parent], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        install = [*pip, "--requirement", str(requirements)]
        subprocess.run(install, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        why = (error.stderr or b"").decode(errors="replace").strip().split("\n")[-1]
        raise ClusterError(f"cannot install {system.module}: {why}") from None
    # Written last: an environment without it is created again.
    made.write_text(requirements.read_text())
