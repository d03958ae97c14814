"""A matrix in a .npy file: memory-mapped, so it may be larger than the memory."""

import math
import stat
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import click
import numpy as np

from cluster.values.codec import NUMERIC_KINDS
from cluster.values.matrices import Matrix

#: First bytes of a .npy file, and of a .npz archive with and without members.
_NPY = b"\x93NUMPY"
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06")
#: Header readers, by the format versions in which numpy writes arrays of numbers.
_READERS: dict[Any, Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Operand(click.ParamType[Matrix]):
    """The array of numbers in a .npy file."""

    name = "file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Matrix:
        """Return the array in the file, memory-mapped."""
        try:
            return read(Path(value))
        except OSError as error:
            return self.fail(f"cannot read {str(value)!r}: {error.strerror or error}", param, ctx)
        except ValueError as error:
            return self.fail(f"{str(value)!r} {error}", param, ctx)


def read(path: Path) -> Matrix:
    """Return the array in a file, memory-mapped; only the header is read.

    Raise OSError, or ValueError if the file is truncated or holds anything but numbers; its text
    completes a sentence that begins with the file's name.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ValueError("is a folder, not a .npy file")
    if not stat.S_ISREG(mode):
        raise ValueError("is not a regular file")
    with path.open("rb") as file:
        _check_header(file)
    try:
        # np.load also handles an array without elements, which mmap refuses.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"has an invalid header: {error}") from None


def _check_header(file: BinaryIO) -> None:
    magic = file.read(len(_NPY))
    if magic.startswith(_ARCHIVES):
        raise ValueError("is a .npz archive: extract one array with numpy.load and numpy.save")
    if magic != _NPY:
        raise ValueError("is not a .npy file")
    file.seek(0)
    try:
        shape, _, dtype = _READERS[np.lib.format.read_magic(file)](file)
    except (ValueError, TypeError, KeyError, SyntaxError, TokenError):
        raise ValueError("has an unreadable header: truncated, or not of numbers") from None
    if dtype.hasobject:
        raise ValueError("holds Python objects, not numbers")
    if dtype.kind not in NUMERIC_KINDS:
        raise ValueError(f"holds {_describe(dtype)}, not numbers")
    if min(shape, default=0) < 0 or any(type(length) is not int for length in shape):
        raise ValueError(f"has an invalid header: shape {shape}")
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    size = file.seek(0, 2)
    if size < expected:
        raise ValueError(f"is truncated: {size} bytes of {expected}")


def _describe(dtype: "np.dtype[Any]") -> str:
    kinds = {"V": "records", "U": "text", "S": "text", "M": "dates", "m": "times"}
    return kinds.get(dtype.kind, str(dtype))
