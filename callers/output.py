"""A command's output file: written completely or not at all, and opened before any work."""

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    import numpy as np

#: Paths of a process's open files; the groups are the process id and the descriptor.
_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/(\d+)(?:/task/\d+)?/fd)/(\d+)")
#: Symbolic links followed from one to the next; Linux has the same limit.
_MAX_LINKS = 40
#: Characters of the target's name in the temporary one, which may have 255 bytes.
_MAX_PREFIX = 40


def out_option(help_: str) -> Callable[..., Any]:
    """Return the option that names a command's output file."""
    return click.option("--out", metavar="FILE", help=help_)


class Output:
    """A temporary file that replaces the target when the block ends without an error.

    It has the permissions that a plain `open` would give. A symbolic link stays, and its target is
    replaced; a device or pipe is opened and written directly. Raise click.UsageError if nothing
    can be written, or click.ClickException if writing fails later.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._temporary: Path | None = None
        self._array: np.ndarray[Any, Any] | None = None
        with self._reporting(click.UsageError):
            self._target = _target(path)
            self._file = os.fdopen(self._create(), "wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with suppress(OSError):  # a full disk, reported already
                self._file.close()
            if self._temporary:
                self._temporary.unlink()

    @property
    def is_new(self) -> bool:
        """Whether the output is a new file, not a device or a pipe."""
        return self._temporary is not None

    def write(self, data: Any) -> None:
        """Write all of `data`."""
        with self._reporting():
            self._file.write(data)

    def save(self, array: "np.ndarray[Any, Any]") -> None:
        """Write an array as a .npy file, in C or Fortran order as it is, without copying it.

        As this is not a real file, numpy writes in parts of 16 MiB instead of calling `tofile`,
        which can neither write to a pipe nor report the cause of an error.
        """
        import numpy as np

        np.lib.format.write_array(self, np.asanyarray(array), allow_pickle=False)

    def matrix(self, shape: tuple[int, ...], dtype: Any) -> "np.ndarray[Any, Any]":
        """Return an array to fill: the file, memory-mapped, or memory for a device or a pipe.

        The disk space is allocated here: if it ran out while the array is filled, the system
        would kill the process.
        """
        import numpy as np

        if not self._temporary or 0 in shape:
            self._array = np.empty(shape, dtype)
            return self._array
        with self._reporting(click.UsageError):
            array = np.lib.format.open_memmap(self._temporary, "w+", dtype, shape)
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(self._file.fileno(), 0, self._temporary.stat().st_size)
        return array

    def _create(self) -> int:
        if self._target is None:
            descriptor = _own_descriptor(Path(self._path))
            if descriptor is None:
                return os.open(self._path, os.O_WRONLY)
            # A duplicate shares the offset: the output of other programs is not overwritten.
            file = os.dup(descriptor)
            os.write(file, b"")  # fails if it is open only for reading
            return file
        folder, name = self._target.parent, self._target.name
        if not folder.is_dir():
            raise click.UsageError(f"there is no folder {str(folder)!r} to write {name} to")
        with suppress(FileNotFoundError):
            os.close(os.open(self._target, os.O_WRONLY))  # fails if it is write-protected
        temporary = folder / f".{name[:_MAX_PREFIX]}.{secrets.token_hex(4)}.part"
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._temporary = temporary
        with suppress(FileNotFoundError):
            old = self._target.stat()
            with suppress(PermissionError):  # only root may change the owner
                os.fchown(file, old.st_uid, old.st_gid)
            os.fchmod(file, stat.S_IMODE(old.st_mode))
        return file

    def _finish(self) -> None:
        if self._array is not None:
            self.save(self._array)
        with self._reporting():
            self._file.flush()
            if self._temporary and self._target:
                os.fsync(self._file.fileno())  # some file systems report a full disk here
                self._temporary.replace(self._target)
                self._temporary = None

    @contextmanager
    def _reporting(self, kind: type[click.ClickException] = click.ClickException) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # the reader has closed the pipe, which is not an error
        except OSError as error:
            raise kind(f"cannot write {self._path!r}: {error.strerror or error}") from None


def _target(name: str) -> Path | None:
    """Return the regular file that a path leads to, new or existing; None for anything else."""
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if name.endswith("/"):
            raise NotADirectoryError(0, "there is no such folder") from None
        return path.resolve()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(0, "it is a directory")
    return path.resolve() if stat.S_ISREG(mode) and not _descriptor(path) else None


def _descriptor(path: Path) -> "re.Match[str] | None":
    """Match the process id and descriptor of the open file that /dev/stdout, say, leads to."""
    for _ in range(_MAX_LINKS):
        path = path.parent.resolve() / path.name
        match = _DESCRIPTOR.fullmatch(str(path))
        if match or not path.is_symlink():
            return match
        path = path.parent / path.readlink()
    return None


def _own_descriptor(path: Path) -> int | None:
    match = _descriptor(path)
    is_own = match and match[1] in {None, str(os.getpid())}
    return int(match[2]) if match and is_own else None
