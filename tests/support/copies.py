"""A copy of the project in another folder, in which tests change what users change."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.repo import ROOT, files


class Copy:
    """The project's files in a repository of its own, all committed; it shares the `.venv`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: The environment of its commands.
        self.environment: Mapping[str, str] = os.environ
        for file in files():
            new = folder / file.relative_to(ROOT)
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, new)  # with its time, or make would install everything again
        (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
        (folder / ".git" / "info").mkdir(parents=True)
        (folder / ".git" / "info" / "exclude").write_text("/.venv\n")
        self.run("git", "init", "--quiet")
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "Copy")

    def run(self, *command: str, **variables: str) -> str:
        """Run a command that succeeds, and return what it prints."""
        done = self.try_to_run(*command, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_to_run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the copy."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": "", **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def status(self) -> str:
        """Return what git says has changed."""
        return self.run("git", "status", "--porcelain", "--untracked-files=all")

    def reset(self) -> None:
        """Undo all changes."""
        self.run("git", "reset", "--quiet", "--hard")
        self.run("git", "clean", "--quiet", "-fd")

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        (self.folder / path).write_text(text)
