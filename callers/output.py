"""A command's output file: written completely or not at all, and opened before any work."""

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

if TYPE_CHECKING:
    import numpy as np

#: Characters of the target's name in the temporary one, which may have 255 bytes.
_MAX_PREFIX = 40
_STDOUT = 1


def out_option(help_: str) -> Callable[..., Any]:
    """Return the option that names a command's output file."""
    return click.option("--out", metavar="FILE", help=help_)


class Output:
    """An open output file: the temporary one, or what is written directly."""

    def __init__(self, path: str, file: BinaryIO, temporary: Path | None) -> None:
        self._path = path
        self._file = file
        self._temporary = temporary
        self._matrix: np.ndarray[Any, Any] | None = None

    @property
    def is_new(self) -> bool:
        """Whether the output is a new file, not a device, a pipe or standard output."""
        return self._temporary is not None

    def write(self, data: Any) -> None:
        """Write all of `data`."""
        with _reporting(self._path):
            self._file.write(data)

    def save(self, array: "np.ndarray[Any, Any]") -> None:
        """Write an array as a .npy file, in C or Fortran order as it is, without copying it.

        As this is not a real file, numpy writes in parts of 16 MiB instead of calling `tofile`,
        which can neither write to a pipe nor report the cause of an error.
        """
        import numpy as np

        if array is not self._matrix:  # which is the file
            np.lib.format.write_array(self, np.asanyarray(array), allow_pickle=False)

    def matrix(self, shape: tuple[int, ...], dtype: Any) -> "np.ndarray[Any, Any] | None":
        """Return an array to fill and save: the new file, memory-mapped; None if there is none.

        The disk space is allocated here: if it ran out while the array is filled, the system
        would kill the process.
        """
        import numpy as np

        if self._temporary:
            with _reporting(self._path, click.UsageError):
                self._matrix = np.lib.format.open_memmap(self._temporary, "w+", dtype, shape)
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(self._file.fileno(), 0, self._temporary.stat().st_size)
        return self._matrix


@contextmanager
def open_output(path: str) -> Iterator[Output]:
    """Open a temporary file that replaces the target when the block ends without an error.

    It has the permissions of the target, or those of any new file. A symbolic link stays, and its
    target is replaced; a device, a pipe and standard output are written directly. Raise
    click.UsageError if nothing can be written, or click.ClickException if writing fails later.
    """
    file = temporary = None
    try:
        with _reporting(path, click.UsageError):
            file = _open_directly(path)
            if not file:
                target = Path(path).resolve()
                temporary = target.with_name(
                    f".{target.name[:_MAX_PREFIX]}.{secrets.token_hex(4)}.part"
                )
                file = temporary.open("xb")
                with suppress(FileNotFoundError):
                    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        yield Output(path, file, temporary)
        with _reporting(path):
            file.flush()
            if temporary:
                os.fsync(file.fileno())  # some file systems report a full disk here
                temporary.replace(target)
    finally:
        with suppress(OSError):  # a full disk, reported already
            if file:
                file.close()
        if temporary:
            temporary.unlink(missing_ok=True)


def _open_directly(path: str) -> BinaryIO | None:
    """Open what is not a file to replace; return None for a regular file or a new one.

    Raise OSError if it cannot be written.
    """
    folder = os.path.dirname(path)  # noqa: PTH120 - pathlib drops a slash at the end
    if folder and not Path(folder).is_dir():
        raise click.UsageError(f"there is no folder {folder!r} to write to")
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    with suppress(OSError):  # it may be closed
        if os.path.samestat(found, os.fstat(_STDOUT)):
            # A duplicate shares the offset: the output of other programs is not overwritten.
            return os.fdopen(os.dup(_STDOUT), "wb")
    descriptor = os.open(Path(path), os.O_WRONLY)
    if not stat.S_ISREG(found.st_mode):
        return os.fdopen(descriptor, "wb")
    os.close(descriptor)
    return None


@contextmanager
def _reporting(
    path: str, kind: type[click.ClickException] = click.ClickException
) -> Iterator[None]:
    """Raise an OSError of the block as `kind`, in one sentence."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader has closed the pipe, which is not an error
    except OSError as error:
        raise kind(f"cannot write {path!r}: {error.strerror or error}") from None
