"""A Celery program whose jobs are run by two workers: one with our pool, one with Celery's.

Both must behave alike, as the notes of hooks and signals show. Each has a queue of its own, `ours`
or `stock`.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from celery_streams.transport import dispatch
from celery_streams.worker import pool, runner
from tests.support.waiting import eventually

Function = TypeVar("Function", bound=Callable[..., Any])

URL = os.environ["PLAIN_URL"]

app = Celery(
    "twins",
    broker=URL,
    backend=f"celery_streams:RedisBackend+{os.environ.get('TWINS_RESULTS', URL)}",
    set_as_current=False,
)
app.conf.update(
    broker_transport="celery_streams:Transport",
    broker_transport_options={"lease": 2},
    broker_connection_retry_on_startup=True,
    worker_consumer="celery_streams:Consumer",
    worker_pool=os.environ.get("PLAIN_POOL", "celery_streams:TaskPool"),
    worker_autoscaler="celery_streams:Autoscaler",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)
app.conf.update(eval(os.environ.get("TWINS_CONF", "{}")))  # noqa: S307 - set by our tests


def note(job_id: str, what: str) -> None:
    """Append a note on a job."""
    app.backend.client.rpush(f"notes-{job_id}", what)  # type: ignore[attr-defined]


class Noting(Task[Any, Any]):
    """A task that notes each of Celery's hooks."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Note it."""
        note(task_id, f"before_start {args} {kwargs}")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Note it."""
        note(task_id, f"on_success {retval!r}")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Note it."""
        note(task_id, f"on_failure {exc!r}")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Note it."""
        note(task_id, f"on_retry {exc!r}")

    def after_return(
        self, status: Any, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Note it."""
        note(task_id, f"after_return {status}")


def twins(**options: Any) -> Callable[[Function], Function]:
    """Register a function as a task."""

    def made(function: Function) -> Function:
        task: Any = app.task
        # Not `shared`: it would be a task of every app that is made after it.
        task(name=function.__name__, base=Noting, shared=False, **options)(function)
        return function

    return made


if os.environ.get("TWINS_UNHURRIED"):
    # A busy machine cuts no fetch short and no batch of acks.
    runner.FETCH_SECONDS = runner.MAX_FETCH_SECONDS = dispatch.ACK_FLUSH_INTERVAL = 60.0
    runner.QUICK_SECONDS = runner.SLOW_SECONDS = pool.LONG_JOB = 60.0

if os.environ.get("TWINS_SIGNALS"):

    @signals.task_prerun.connect(weak=False)
    def _prerun(task_id: str, **_: Any) -> None:
        note(task_id, "task_prerun")

    @signals.task_postrun.connect(weak=False)
    def _postrun(task_id: str, state: str, **_: Any) -> None:
        note(task_id, f"task_postrun {state}")

    @signals.task_success.connect(weak=False)
    def _success(sender: Any, result: Any, **_: Any) -> None:
        note(sender.request.id, f"task_success {result!r}")

    @signals.task_failure.connect(weak=False)
    def _failure(task_id: str, exception: Any, **_: Any) -> None:
        note(task_id, f"task_failure {exception!r}")


if os.environ.get("TWINS_RECEIVED"):

    @signals.task_received.connect(weak=False)
    def _received(request: Any, **_: Any) -> None:
        note(request.id, "task_received")


@twins()
def echo(value: Any = None) -> Any:
    """Return `value`."""
    return value


@twins(bind=True)
def process(self: Any) -> int:
    """Return the pid of the process."""
    return os.getpid()


@twins(bind=True)
def request(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Return all that a task knows of its job."""
    known = dict(vars(self.request))
    known["delivery_info"] = dict(known["delivery_info"])
    known["properties"] = {**known["properties"], "delivery_tag": None}
    return {key: repr(known[key]) for key in sorted(known)}


@twins()
def gated(folder: str, value: Any, error: str | None = None) -> Any:
    """Create a file to show that this runs; return when the folder has a file `open`."""
    (Path(folder) / f"{value}-{uuid4().hex}").touch()
    eventually("the gate is open", (Path(folder) / "open").exists, 60)
    if error:
        raise ValueError(error)
    return value


@twins()
def fail(text: str) -> None:
    """Fail."""
    raise ValueError(text)


@twins(bind=True, max_retries=2, default_retry_delay=0)
def retry(self: Any) -> int:
    """Return the number of retries: two."""
    if self.request.retries < 2:
        raise self.retry(exc=ValueError("again"))
    return int(self.request.retries)


@twins()
def ignore() -> None:
    """End without a result."""
    raise Ignore


@twins()
def reject() -> None:
    """Reject the message."""
    raise Reject("no good", requeue=False)


@twins()
def requeue(folder: str) -> str:
    """Requeue the message the first time."""
    first = Path(folder) / "requeued"
    if first.exists():
        return "again"
    first.touch()
    raise Reject("later", requeue=True)


@twins(reject_on_worker_lost=False)
def leave(status: Any) -> None:
    """End the process by an exception."""
    raise SystemExit(status)


@twins(reject_on_worker_lost=False)
def end(number: int) -> None:
    """End the process by a signal."""
    os.kill(os.getpid(), number)


@twins(reject_on_worker_lost=False, acks_late=False)
def end_early(number: int) -> None:
    """End the process by a signal, with the message acked."""
    os.kill(os.getpid(), number)


@twins(acks_late=False)
def fail_early(text: str) -> None:
    """Fail, with the message acked."""
    raise ValueError(text)


@twins(ignore_result=True)
def silent() -> int:
    """Return a value that is not stored."""
    return 1


@twins(soft_time_limit=1)
def slow() -> str:
    """Run into the soft time limit."""
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        return "stopped"
    return "not stopped"


@twins(time_limit=1)
def hang() -> None:
    """Run into the hard time limit."""
    time.sleep(60)


@twins(soft_time_limit=1)
def slow_without_end() -> None:
    """Run into the soft time limit, and fail."""
    time.sleep(20)


@twins(bind=True)
def child(self: Any) -> Any:
    """Send a job as a child of this one."""
    queue = self.request.delivery_info["routing_key"]
    return app.tasks["echo"].apply_async((1,), queue=queue).id


@twins(rate_limit="1000/s")
def limited() -> int:
    """Return a number, at a limited rate."""
    return 1


@twins(acks_late=False)
def early() -> int:
    """Return a number, with the message acked."""
    return 1


@twins()
def grow(size: int) -> int:
    """Allocate as many bytes, for good, and return the pid of the process."""
    globals()["_grown"] = b"x" * size
    return os.getpid()
