"""A command's output file: written whole or not at all, and found unwritable before any work."""

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

#: Where the system shows the open files of a process: of which one, and the file's number.
_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/(\d+)(?:/task/\d+)?/fd)/(\d+)")
#: Links that lead to other links, as many as Linux follows.
_LINKS = 40
#: Characters of the file's name that the new one beside it has: a name has at most 255 bytes.
_NAME_LENGTH = 40


def out_option(help_: str) -> Callable[..., Any]:
    """Return the option that names a command's output file."""
    return click.option("--out", metavar="FILE", help=help_)


class Output:
    """A new file beside the one that is named, whose place it takes when the block ends well.

    It has the permissions that a plain `open` would leave; a link stays, and what it leads to
    is replaced. What is there and no regular file is opened and written as it is. Raises
    click.UsageError where nothing can be written, and ClickException if that turns out later.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._new: Path | None = None
        self._array: np.ndarray[Any, Any] | None = None
        with self._told(click.UsageError):
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
            with suppress(OSError):  # the disk is full: that was told
                self._file.close()
            if self._new:
                self._new.unlink()

    @property
    def is_new(self) -> bool:
        """Whether it goes into a new file, and not into a device or a pipe."""
        return self._new is not None

    def write(self, data: Any) -> None:
        """Write bytes, all of them."""
        with self._told():
            self._file.write(data)

    def save(self, array: "np.ndarray[Any, Any]") -> None:
        """Write an array as a .npy file, C or Fortran order as it is, without a copy of it.

        To numpy this is no real file: then it writes in parts of 16 MiB, into a pipe, too,
        and a disk that is full is said by its name. `tofile` knows neither.
        """
        import numpy as np

        np.lib.format.write_array(self, np.asanyarray(array), allow_pickle=False)

    def matrix(self, shape: tuple[int, ...], dtype: Any) -> "np.ndarray[Any, Any]":
        """Return an array that is the file, to be filled; the memory of one that goes elsewhere.

        The disk's space is taken here: where it ends later, the system kills whoever fills
        the array.
        """
        import numpy as np

        if not self._new or 0 in shape:
            self._array = np.empty(shape, dtype)
            return self._array
        with self._told(click.UsageError):
            array = np.lib.format.open_memmap(self._new, "w+", dtype, shape)
            if hasattr(os, "posix_fallocate"):  # macOS has none
                os.posix_fallocate(self._file.fileno(), 0, self._new.stat().st_size)
        return array

    def _create(self) -> int:
        if self._target is None:
            descriptor = _own_descriptor(Path(self._path))
            if descriptor is None:
                return os.open(self._path, os.O_WRONLY)
            # What others wrote to it stays, and what they write later comes after.
            file = os.dup(descriptor)
            os.write(file, b"")  # fails if it is open for reading alone
            return file
        folder, name = self._target.parent, self._target.name
        if not folder.is_dir():
            raise click.UsageError(f"there is no folder {str(folder)!r} to write {name} to")
        with suppress(FileNotFoundError):
            os.close(os.open(self._target, os.O_WRONLY))  # it may be protected
        new = folder / f".{name[:_NAME_LENGTH]}.{secrets.token_hex(4)}.part"
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._new = new
        with suppress(FileNotFoundError):
            old = self._target.stat()
            with suppress(PermissionError):  # the owner's, or root's, to say
                os.fchown(file, old.st_uid, old.st_gid)
            os.fchmod(file, stat.S_IMODE(old.st_mode))
        return file

    def _finish(self) -> None:
        if self._array is not None:
            self.save(self._array)
        with self._told():
            self._file.flush()
            if self._new and self._target:
                os.fsync(self._file.fileno())  # some disks say here that they are full
                self._new.replace(self._target)
                self._new = None

    @contextmanager
    def _told(self, kind: type[click.ClickException] = click.ClickException) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # whoever reads has seen enough: no error
        except OSError as error:
            raise kind(f"cannot write {self._path!r}: {error.strerror or error}") from None


def _target(name: str) -> Path | None:
    """Return the regular file that a path leads to, there already or not, or None."""
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
    """Return whose open file, and which, a path such as /dev/stdout leads to."""
    for _ in range(_LINKS):
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
