"""An output file is written completely or not at all, and only regular files are replaced."""

import os
import socket
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import pytest

from callers.output import open_output
from tests.support.repo import ROOT


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def in_a_process(program: str, *argv: str, **streams: Any) -> "subprocess.CompletedProcess[bytes]":
    program = f"import sys\nfrom callers.output import open_output\n{program}"
    return subprocess.run(
        [sys.executable, "-c", program, *argv], cwd=ROOT, timeout=30, check=False, **streams
    )


def test_a_file_is_there_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with open_output(str(path)) as output:
        output.write(b"all")
        assert not path.exists()

    assert path.read_bytes() == b"all"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(error), open_output(str(path)) as output:  # noqa: PT012 - an error of the block
        output.write(b"new")
        raise error

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_an_error_leaves_what_was_there_beside_a_matrix(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="a tile"), open_output(str(path)) as output:  # noqa: PT012 - an error of the block
        matrix = output.matrix((3, 4), np.float64)
        assert matrix is not None
        matrix[0] = 1
        raise ValueError("a tile")

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_a_file_has_the_permissions_that_open_gives(tmp_path: Path, umask: int) -> None:
    plain, path, old = (tmp_path / name for name in ("plain", "new", "old"))
    old.touch()
    old.chmod(0o640)
    before = os.umask(umask)
    try:
        plain.touch()
        for file in (path, old):
            with open_output(str(file)):
                pass
    finally:
        os.umask(before)

    assert permissions(path) == permissions(plain) == 0o666 & ~umask
    assert permissions(old) == 0o640


@pytest.mark.parametrize("there_before", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, there_before: bool) -> None:
    (tmp_path / "folder").mkdir()
    link, target = tmp_path / "link", tmp_path / "folder" / "target"
    if there_before:
        target.write_bytes(b"old")
    link.symlink_to("folder/target")
    with open_output(str(link)) as output:
        output.write(b"new")

    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "folder") == ["target"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/out", "there is no folder '.*/nowhere' to write to"),
        ("", "Is a directory"),
        ("new/", "there is no folder '.*/new' to write to"),
        ("file/out", "there is no folder '.*/file' to write to"),
        ("loop", "Too many levels of symbolic links"),
        ("n" * 300, "File name too long"),
        ("socket", "No such device or address"),
    ],
)
def test_what_cannot_be_written_is_found_at_once(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(tmp_path / "socket"))
    before = names(tmp_path)
    with pytest.raises(click.UsageError, match=words), open_output(f"{tmp_path}/{name}"):
        pass

    assert names(tmp_path) == before


def test_a_name_as_long_as_a_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with open_output(str(path)) as output:
        output.write(b"all")

    assert path.read_bytes() == b"all"


@pytest.fixture
def folder_for_all() -> Iterator[Path]:
    """A folder that only its owner may write to, for a user other than root."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "out").touch(0o444)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)  # root may write everywhere
        try:
            yield folder
        finally:
            if was_root:
                os.seteuid(0)


@pytest.mark.parametrize("name", ["out", "new"])
def test_a_protected_file_or_folder_is_found_at_once(folder_for_all: Path, name: str) -> None:
    with (
        pytest.raises(click.UsageError, match="Permission denied"),
        open_output(str(folder_for_all / name)),
    ):
        pass

    assert names(folder_for_all) == ["out"]


def test_a_device_is_written_as_it_is() -> None:
    with open_output("/dev/null") as output:
        output.save(np.ones((10, 10)))

    assert Path("/dev/null").is_char_device()


def test_a_full_device_is_reported(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    with (
        pytest.raises(click.ClickException, match=r"cannot write '.*/link': No space left"),
        open_output(str(link)) as output,
    ):
        output.write(b"all")

    assert Path("/dev/full").is_char_device()
    assert link.is_symlink()


def test_a_fifo_is_written_as_it_is(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        with open_output(str(fifo)) as output:
            output.write(b"all")
        assert reader.communicate(timeout=30)[0] == b"all"

    assert fifo.is_fifo()


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_is_no_file_to_replace(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    log = tmp_path / "log"
    program = "with open_output(sys.argv[1]) as o: o.write(b'all')"
    with log.open("wb") as stdout:
        stdout.write(b"before ")
        stdout.flush()
        done = in_a_process(program, path.replace("link", f"{tmp_path}/link"), stdout=stdout)
        stdout.write(b" after")

    assert done.returncode == 0
    assert log.read_bytes() == b"before all after"
    assert names(tmp_path) == ["link", "log"]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24.0).reshape(4, 6)[::2, 1:4],
        np.arange(5_000_000),
        np.zeros((0, 3)),
        np.array(3.5),
    ],
    ids=lambda array: f"{array.shape}{array.strides}",
)
@pytest.mark.parametrize("through", ["file", "pipe"])
def test_an_array_is_saved_as_numpy_saves_it(
    tmp_path: Path, array: "np.ndarray[Any, Any]", through: str
) -> None:
    plain, path = tmp_path / "plain.npy", tmp_path / "out"
    np.save(plain, array)
    if through == "file":
        with open_output(str(path)) as output:
            output.save(array)
    else:
        with (
            path.open("wb") as file,
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as cat,
        ):
            assert cat.stdin
            with open_output(f"/dev/fd/{cat.stdin.fileno()}") as output:
                output.save(array)

    assert path.read_bytes() == plain.read_bytes()


def test_an_array_is_saved_without_a_copy_of_it(tmp_path: Path) -> None:
    array = np.zeros((2000, 4000))
    with open_output(str(tmp_path / "out")) as output:
        tracemalloc.start()
        output.save(array.T)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < array.nbytes


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
@pytest.mark.parametrize("name", ["out", "fifo"])
def test_a_matrix_that_is_filled_is_the_file(
    tmp_path: Path, shape: tuple[int, ...], name: str
) -> None:
    path, expected = tmp_path / name, np.arange(float(np.prod(shape))).reshape(shape)
    got = tmp_path / "got"
    if name == "fifo":
        os.mkfifo(path)
    with (
        got.open("wb") as copy,
        subprocess.Popen(["cat", path] if name == "fifo" else ["true"], stdout=copy),
        open_output(str(path)) as output,
    ):
        matrix = output.matrix(shape, np.float64)
        assert (matrix is None) == (name == "fifo")
        if matrix is None:
            matrix = np.empty(shape)
        matrix[:] = expected
        output.save(matrix)
    received = np.load(got if name == "fifo" else path)

    assert received.dtype == np.float64
    np.testing.assert_array_equal(received, expected)


def test_the_space_of_a_matrix_is_taken_before_it_is_filled(tmp_path: Path) -> None:
    with open_output(str(tmp_path / "out")) as output:
        matrix = output.matrix((1000, 1000), np.float64)
        (new,) = tmp_path.iterdir()

        assert matrix is not None
        assert new.stat().st_blocks * 512 >= matrix.nbytes


@pytest.mark.parametrize(
    ("write", "error"),
    [
        ("output.write(bytes(9000))", "ClickException"),
        ("output.save(np.ones((1000, 1000)))", "ClickException"),
        ("output.save(np.ones((1000, 1000)).T[::2])", "ClickException"),
        ("output.matrix((1000, 1000), np.float64)", "UsageError"),  # before any job
    ],
)
def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, write: str, error: str) -> None:
    # Like a full disk: a file of more than 4096 bytes cannot be written.
    program = (
        "import resource, signal, numpy as np\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"with open_output(sys.argv[1]) as output: {write}"
    )
    done = in_a_process(program, str(tmp_path / "out"), stderr=subprocess.PIPE)

    last = done.stderr.decode().splitlines()[-1]
    assert last == f"click.exceptions.{error}: cannot write '{tmp_path}/out': File too large"
    assert names(tmp_path) == []
