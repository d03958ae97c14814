"""The development loop: changes of the code that a family's workers run."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from cluster.errors import ClusterError
from local.process import POLL_INTERVAL
from local.server import ROOT

#: Seconds between two looks for new folders.
FOLDERS_INTERVAL = 0.5


def changes(family: str) -> Iterator[list[str]]:
    """Yield the Python files that have changed, at least every POLL_INTERVAL; often none.

    The first item comes as soon as changes are noticed. Raise ClusterError without watchfiles.
    """
    try:
        import watchfiles
    except ImportError:
        raise ClusterError("--watch needs watchfiles: `make install` installs it") from None
    folders = _folders(family)
    while True:
        yield from _until_folders_change(watchfiles, family, folders)
        before, folders = folders, _folders(family)
        new = [folder for folder, number in folders.items() if before.get(folder) != number]
        yield sorted(str(file) for folder in new for file in folder.glob("*.py"))


def _until_folders_change(
    watchfiles: Any, family: str, folders: dict[Path, int]
) -> Iterator[list[str]]:
    """Yield changes in folders, which are watched as they are now, until there are others."""
    looked = monotonic()
    # Folders, because editors replace files; the first is for celeryconfig.py alone.
    for changed in watchfiles.watch(
        *(ROOT, *folders),
        recursive=False,
        watch_filter=watchfiles.PythonFilter(),
        rust_timeout=round(POLL_INTERVAL * 1000),
        yield_on_timeout=True,
    ):
        yield sorted({str(path) for _, path in changed})
        if monotonic() - looked > FOLDERS_INTERVAL:
            looked = monotonic()
            if _folders(family) != folders:
                return


def _folders(family: str) -> dict[Path, int]:
    """Return the folders of the code, each with the number by which the file system knows it."""
    packages = [ROOT / name for name in (family, "cluster", "celery_streams")]
    found = [
        folder
        for package in packages
        if package.is_dir()
        for folder in (package, *package.rglob("*/"))
        if folder.name != "__pycache__"
    ]
    return {folder: folder.stat().st_ino for folder in found}
