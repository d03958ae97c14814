"""Changes of the project's files that are made all or none."""

import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What a user, a terminal or a service manager interrupts a command by.
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}


class Changes:
    """New contents of files, by their paths below `root`; nothing is written before `apply`."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._texts: dict[str, bytes | None] = {}

    def read(self, path: str) -> str:
        """Return the text that a file has, or will have."""
        new = self._texts.get(path)
        return (new or (self._root / path).read_bytes()).decode()

    def export(self, folder: Path, *prefixes: str) -> None:
        """Write the new contents of paths that begin so into another folder."""
        for path, content in self._texts.items():
            if content is not None and path.startswith(prefixes):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)

    def edit(self, path: str, change: Callable[..., str], *arguments: str) -> None:
        """Have a file hold what a function makes of its text."""
        self.write(path, change(self.read(path), *arguments))

    def write(self, path: str, text: str) -> None:
        """Have a file hold this text."""
        self._texts[path] = text.encode()

    def delete(self, path: str) -> None:
        """Have a file, or all files of a folder, deleted, and folders that become empty."""
        folder = self._root / path
        files = folder.rglob("*") if folder.is_dir() else [folder]
        for file in files:
            if not file.is_dir():
                self._texts[str(file.relative_to(self._root))] = None

    def apply(self) -> None:
        """Make the changes; undo them at an error, which is raised. An interrupt has to wait."""
        former = {path: self._content(path) for path in self._texts}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        try:
            self._put(self._texts)
        except OSError:
            with suppress(OSError):
                self._put(former)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _content(self, path: str) -> bytes | None:
        file = self._root / path
        return file.read_bytes() if file.exists() else None

    def _put(self, contents: Mapping[str, bytes | None]) -> None:
        # New files first: if the disk is full, nothing else has changed.
        for path in sorted(contents, key=lambda path: (self._root / path).exists()):
            file, content = self._root / path, contents[path]
            if content is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                continue
            file.unlink(missing_ok=True)
            for folder in file.parents[: len(Path(path).parents) - 1]:
                shutil.rmtree(folder / "__pycache__", ignore_errors=True)
                with suppress(OSError):  # it is not empty
                    folder.rmdir()
