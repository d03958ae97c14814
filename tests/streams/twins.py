"""A Celery program whose tasks exist twice: inline, and in Celery's pool.

Both of a pair must behave alike, as the notes of hooks and signals show.
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
from celery_streams.worker import inline
from tests.waiting import eventually

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
    """Register a function as two tasks, `inline.<name>` and `stock.<name>`."""

    def made(function: Function) -> Function:
        name = function.__name__
        for kind in ("inline", "stock"):
            task: Any = app.task
            task(
                name=f"{kind}.{name}", inline=kind == "inline", base=Noting, shared=False, **options
            )(function)
        return function

    return made


if os.environ.get("TWINS_UNHURRIED"):
    # A busy machine cuts no fetch short and no batch of acks.
    inline.FETCH_SECONDS = inline.MAX_FETCH_SECONDS = dispatch.ACK_FLUSH_INTERVAL = 60.0

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
    return {key: repr(value) for key, value in known.items()}


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
def leave() -> None:
    """End the process."""
    raise SystemExit


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
    """Ignore all time limits."""
    while True:
        time.sleep(1)


@twins(bind=True)
def child(self: Any) -> Any:
    """Send a job as a child of this one."""
    kind = self.name.partition(".")[0]
    return app.tasks[f"{kind}.echo"].delay(1).id


@twins(rate_limit="1000/s")
def limited() -> int:
    """Return the pid of the process."""
    return os.getpid()


@twins(acks_late=False)
def early() -> int:
    """Return the pid of the process."""
    return os.getpid()
