"""The development loop: changes of the code that a family's workers run."""

from collections.abc import Iterator
from itertools import chain

from cluster.errors import ClusterError
from local.process import POLL_INTERVAL
from local.server import ROOT


def changes(family: str) -> Iterator[list[str]]:
    """Yield the Python files that have changed, at least every POLL_INTERVAL; often none.

    The first item comes as soon as changes are noticed. Raise ClusterError without watchfiles.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ClusterError("--watch needs watchfiles: `make install` installs it") from None
    packages = [ROOT / name for name in (family, "cluster", "celery_streams")]
    below = chain.from_iterable(package.rglob("*/") for package in packages)
    # Folders, because editors replace files; the first is for celeryconfig.py alone.
    for changed in watch(
        *(ROOT, *packages, *below),
        recursive=False,
        watch_filter=PythonFilter(),
        rust_timeout=round(POLL_INTERVAL * 1000),
        yield_on_timeout=True,
    ):
        yield sorted({str(path) for _, path in changed})
