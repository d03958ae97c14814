"""The systems of the comparison: how each is started and tuned, and its guarantees."""

from typing import NamedTuple

from bench.peers.protocol import VARIANT
from cluster.errors import ClusterError

#: Worker processes of each system.
WORKERS = 2


class System(NamedTuple):
    """A system under test; `workers` are command lines, without the folders of the programs."""

    name: str
    title: str
    #: The folder of its client and requirements in bench/peers.
    folder: str
    workers: tuple[tuple[str, ...], ...]
    #: The packages whose versions are reported.
    packages: tuple[str, ...]
    tuned: str
    guarantee: str
    #: Settings that its worker and its client share.
    variables: tuple[tuple[str, str], ...] = ()
    #: The Python that it needs, if not this one, such as "3.13".
    python: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is this cluster."""
        return self.folder == "ours"

    @property
    def is_stock_celery(self) -> bool:
        """Whether it is stock Celery."""
        return self.folder == "celery"

    @property
    def needs_environment(self) -> bool:
        """Whether it needs packages other than the cluster's, which include the newest Celery."""
        return not (self.is_ours or self.is_stock_celery)


_CELERY_LOSS = (
    "At least once for a job that a worker holds, an hour later (visibility timeout). One that is "
    "taken off its list and not yet noted is lost (kombu#305)."
)
_CELERY_TUNED = (
    "acknowledged late (task_acks_late), prefetch multiplier 64, no gossip, mingle and heartbeat"
)


def _celery(pool: str, processes: int, concurrency: int, folder: str = "celery") -> System:
    line = (
        "celery",
        f"--app=bench.peers.{folder}.tasks",
        "--quiet",
        "worker",
        f"--pool={pool}",
        f"--concurrency={concurrency}",
        "--loglevel=WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    )
    many = f"{processes} workers with {concurrency} threads"
    how = {"prefork": f"a worker with {concurrency} processes", "threads": many}
    return System(
        f"celery-{pool}",
        f"Celery, {pool}",
        folder,
        tuple((*line, f"--hostname={pool}{number}@%h") for number in range(processes)),
        ("celery", "kombu", "redis", "hiredis"),
        f"{how.get(pool, f'{processes} workers')}; {_CELERY_TUNED}",
        _CELERY_LOSS,
    )


def _taskiq(broker: str, guarantee: str) -> System:
    return System(
        f"taskiq-{broker}",
        f"taskiq, {broker} broker",
        "taskiq",
        (
            (
                "taskiq",
                "worker",
                "bench.peers.taskiq.tasks:broker",
                f"--workers={WORKERS}",
                "--log-level=WARNING",
            ),
        ),
        ("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"),
        f"{WORKERS} processes on uvloop; results looked for each ms, many each 20 ms; in bulk 50 "
        "`kiq` at a time",
        guarantee,
        ((VARIANT, broker),),
    )


OURS = System(
    "ours",
    "this cluster",
    "ours",
    (("python", "-m", "local", "worker", "add"),),
    ("celery", "kombu", "redis", "hiredis"),
    f"an `add` worker with {WORKERS} processes, otherwise as local mode starts it; in bulk each "
    "job by itself (`bundle=False`)",
    "At least once: what a killed worker held runs elsewhere after the lease, 15 s; no accepted "
    "job is lost, nor with a killed Redis ([counted](reliability.md)).",
)

SYSTEMS = (
    OURS,
    _celery("prefork", 1, WORKERS),
    _celery("threads", WORKERS, 8),
    _celery("solo", WORKERS, 1),
    _celery("prefork", 1, WORKERS, "celery_redis_plus")._replace(
        name="celery-redis-plus",
        title="Celery, redis-plus",
        packages=("celery-redis-plus", "celery", "kombu", "redis", "hiredis"),
        tuned=f"prefork, on sorted sets: a worker with {WORKERS} processes; {_CELERY_TUNED}",
        guarantee="At least once: what a dead worker held is queued again when its visibility "
        "timeout, 5 minutes, has passed.",
        python="3.13",
    ),
    System(
        "dramatiq",
        "dramatiq",
        "dramatiq",
        (
            (
                "dramatiq",
                "bench.peers.dramatiq.tasks",
                f"--processes={WORKERS}",
                "--threads=8",
            ),
        ),
        ("dramatiq", "redis", "hiredis"),
        f"{WORKERS} processes with 8 threads, results middleware on Redis; in bulk a group",
        "At least once: a dead worker's messages are queued again when its heartbeat is a minute "
        "old.",
    ),
    System(
        "huey",
        "huey",
        "huey",
        (
            (
                "huey_consumer",
                "bench.peers.huey.tasks.huey",
                "--worker-type=process",
                f"--workers={WORKERS}",
                "--delay=0.001",
                "--no-periodic",
                "--quiet",
            ),
        ),
        ("huey", "redis", "hiredis"),
        f"{WORKERS} processes, blocking fetches, notices of results; its `map` submits one by one",
        "At most once: a task is taken off its list before it runs, and is gone with its worker.",
    ),
    _taskiq("list", "At most once: this broker has no acknowledgements."),
    _taskiq(
        "stream",
        "At least once: acknowledged when the result is saved, and given to another worker when "
        "it has been idle for 10 minutes.",
    ),
    System(
        "rq",
        "rq",
        "rq",
        (
            (
                "rq",
                "worker",
                "--worker-class=rq.worker.SimpleWorker",
                "--logging_level=WARNING",
            ),
        )
        * WORKERS,
        ("rq", "redis", "hiredis"),
        f"{WORKERS} SimpleWorkers, which do not fork for each job (its default, far slower); "
        "blocking reads of results; in bulk enqueue_many",
        "At most once by default: a dead worker's job is found abandoned and marked failed; it "
        "runs again only where it has a Retry.",
    ),
    System(
        "saq",
        "saq",
        "saq",
        (("saq", "bench.peers.saq.tasks.settings", f"--workers={WORKERS}", "--quiet"),),
        ("saq", "redis", "hiredis"),
        f"{WORKERS} processes, concurrency 10, hiredis; results looked for each ms, by `map` each "
        "50 ms",
        "At most once by default: a sweep finds the stuck job after its timeout and aborts it; it "
        "runs again only where it has retries.",
    ),
    System(
        "arq",
        "arq",
        "arq",
        (("arq", "bench.peers.arq.tasks.WorkerSettings"),) * WORKERS,
        ("arq", "redis", "hiredis"),
        f"{WORKERS} workers, max_jobs 10, poll_delay 5 ms; results looked for each ms, many each "
        "20 ms; in bulk 50 "
        "`enqueue_job` at a time",
        "At least once: a job stays queued until it has ended, and runs again when its key in "
        "progress expires (timeout + 10 s).",
    ),
)
NAMES = tuple(system.name for system in SYSTEMS)


def named(names: str) -> tuple[System, ...]:
    """Return the systems of a list such as `ours,dramatiq`; raises ClusterError for others."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in NAMES:
            raise ClusterError(f"{name!r} is not one of {', '.join(NAMES)}")
    if not wanted:
        raise ClusterError(f"no system is named: there are {', '.join(NAMES)}")
    return tuple(system for system in SYSTEMS if system.name in wanted)
