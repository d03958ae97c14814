"""Changes of the project's files that are made all or none."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
#: What a user, a terminal or a service manager interrupts a command by.
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}


class Changes:
    """New contents of files, by their paths below `root`; nothing is written before `apply`."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._texts: dict[str, bytes] = {}
        self._deleted: list[str] = []
        #: What was read of files.
        self._former: dict[str, bytes] = {}

    def read(self, path: str) -> str:
        """Return the text that a file has, or will have."""
        if path not in self._texts:
            return self._former.setdefault(path, (self._root / path).read_bytes()).decode()
        return self._texts[path].decode()

    def edit(self, path: str, change: Callable[..., str], *arguments: str) -> None:
        """Have a file hold what a function makes of its text."""
        self.write(path, change(self.read(path), *arguments))

    def write(self, path: str, text: str) -> None:
        """Have a file hold this text."""
        self._texts[path] = text.encode()

    def delete(self, path: str) -> None:
        """Have a file or a folder deleted."""
        self._deleted.append(path)

    def export(self, folder: Path, *prefixes: str) -> None:
        """Write the new contents of paths that begin so into another folder."""
        for path, content in self._texts.items():
            if path.startswith(prefixes):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)

    def apply(self) -> None:
        """Make the changes; undo them at an error, which is raised. An interrupt has to wait.

        Raise ValueError if another command has changed a file since it was read.
        """
        with _held_back(), _locked(self._root):
            for path, content in self._former.items():
                if (self._root / path).read_bytes() != content:
                    raise ValueError(f"{path} has changed meanwhile: try again")
            # Beside the files, so that these can be moved there.
            with TemporaryDirectory(dir=self._root, prefix=".deleted-") as folder:
                self._replace(Path(folder))

    def _replace(self, folder: Path) -> None:
        """Write the files and move the deleted ones into a folder; undo that at an error."""
        former = {path: self._content(path) for path in self._texts}
        moved: list[str] = []
        try:
            for path in self._deleted:
                (self._root / path).rename(folder / str(len(moved)))
                moved.append(path)
            # New files first: if the disk is full, nothing else has changed.
            for path in sorted(self._texts, key=lambda path: former[path] is not None):
                (self._root / path).parent.mkdir(exist_ok=True)
                (self._root / path).write_bytes(self._texts[path])
        except OSError:
            with suppress(OSError):
                self._restore(former)
                for index, path in enumerate(moved):
                    (folder / str(index)).rename(self._root / path)
            raise

    def _content(self, path: str) -> bytes | None:
        file = self._root / path
        return file.read_bytes() if file.exists() else None

    def _restore(self, former: Mapping[str, bytes | None]) -> None:
        for path, content in former.items():
            file = self._root / path
            if content is not None:
                file.write_bytes(content)
            else:
                file.unlink(missing_ok=True)
                with suppress(OSError):  # it is not empty, or was not made
                    file.parent.rmdir()


@contextmanager
def _held_back() -> Iterator[None]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one command at a time change the files."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
