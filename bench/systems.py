"""The systems of the comparison: how each is started; page.md says how it is tuned."""

from collections.abc import Iterable
from typing import NamedTuple

from bench.peers.protocol import VARIANT
from cluster.errors import ClusterError

#: Worker processes of each system.
WORKERS = 2


class System(NamedTuple):
    """A system under test; `workers` are command lines, without the folders of the programs."""

    name: str
    title: str
    #: Its module in bench.peers.
    module: str
    workers: tuple[str, ...]
    #: The packages whose versions are reported.
    packages: tuple[str, ...]
    #: Settings that its worker and its client share.
    variables: tuple[tuple[str, str], ...] = ()
    #: The Python that it needs, if not this one, such as "3.13".
    python: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is this cluster."""
        return self.module == "ours"

    @property
    def is_stock(self) -> bool:
        """Whether it is stock Celery."""
        return self.module == "celery"

    @property
    def needs_environment(self) -> bool:
        """Whether it needs packages other than the cluster's, which include the newest Celery."""
        return not (self.is_ours or self.is_stock)


_REDIS = ("redis", "hiredis")
_CELERY = ("celery", "kombu", *_REDIS)


def _celery(pool: str, processes: int, concurrency: int, module: str = "celery") -> System:
    line = (
        f"celery --app=bench.peers.{module} --quiet worker --pool={pool} --loglevel=WARNING "
        f"--concurrency={concurrency} --without-gossip --without-mingle --without-heartbeat"
    )
    lines = tuple(f"{line} --hostname={pool}{number}@%h" for number in range(processes))
    return System(f"celery-{pool}", f"Celery, {pool}", module, lines, _CELERY)


def _taskiq(broker: str) -> System:
    line = f"taskiq worker bench.peers.taskiq:broker --workers={WORKERS} --log-level=WARNING"
    packages = ("taskiq", "taskiq-redis", *_REDIS, "uvloop")
    title = f"taskiq, {broker} broker"
    return System(f"taskiq-{broker}", title, "taskiq", (line,), packages, ((VARIANT, broker),))


def _other(name: str, line: str, workers: int = 1) -> System:
    return System(name, name, name, (line,) * workers, (name, *_REDIS))


OURS = System("ours", "this cluster", "ours", ("python -m local worker add",), _CELERY)
SYSTEMS = (
    OURS,
    _celery("prefork", 1, WORKERS),
    _celery("threads", WORKERS, 8),
    _celery("solo", WORKERS, 1),
    _celery("prefork", 1, WORKERS, "celery_redis_plus")._replace(
        name="celery-redis-plus",
        title="Celery, redis-plus",
        packages=("celery-redis-plus", *_CELERY),
        python="3.13",
    ),
    _other("dramatiq", f"dramatiq bench.peers.dramatiq --processes={WORKERS} --threads=8"),
    _other(
        "huey",
        f"huey_consumer bench.peers.huey.huey --worker-type=process --workers={WORKERS} "
        "--delay=0.001 --no-periodic --quiet",
    ),
    _taskiq("list"),
    _taskiq("stream"),
    _other(
        "rq", "rq worker --worker-class=rq.worker.SimpleWorker --logging_level=WARNING", WORKERS
    ),
    _other("saq", f"saq bench.peers.saq.settings --workers={WORKERS} --quiet"),
    _other("arq", "arq bench.peers.arq.WorkerSettings", WORKERS),
)
TITLES = {system.name: system.title for system in SYSTEMS}


def named(names: Iterable[str]) -> tuple[System, ...]:
    """Return the systems of these names, in the usual order; raises ClusterError for others."""
    wanted = {name.strip() for name in names}
    for name in wanted - TITLES.keys():
        raise ClusterError(f"{name!r} is not one of {', '.join(TITLES)}")
    return tuple(system for system in SYSTEMS if system.name in wanted)
