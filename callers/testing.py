"""Runs a family's task in a unit test: in this process, without a broker or a result store.

`from callers.testing import run; assert run("add.tasks.add", 4, 6) == 10`
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import import_module
from typing import Any, NoReturn

from celery.app import app_or_default
from celery.canvas import Signature
from celery.states import PROPAGATE_STATES
from kombu.message import Message
from kombu.serialization import dumps

from celery_streams.errors import Malformed
from celery_streams.producer.jobs import new_id
from celery_streams.worker.messages import check_message, failure
from cluster.app import App, create
from cluster.arguments import brief
from cluster.canvas import LINK_OPTIONS
from cluster.errors import ClusterError, ValueGone
from cluster.values import blobs
from cluster.values.backend import RedisBackend


def run(task: "str | Signature[Any]", /, *args: Any, **kwargs: Any) -> Any:
    """Run a task, given by its name or as the signature of one job, and return its value.

    Arguments and value are encoded and decoded as on a cluster: a tuple arrives as a list, and what
    cannot be sent raises the same error. The task's error is raised as the caller of a cluster gets
    it; its cause is the original one, with the task's traceback. Retries run at once, as many as
    the task may have.

    The task checks its arguments itself, without the callers' contract before it. Time limits are
    not enforced, and the task can neither submit jobs nor read results: use a local
    cluster (`make local_start`) for that, and for a chain, group or chord. Raise UnknownTask for a
    task without a route, and ClusterError if its module cannot be imported.
    """
    app = _app()
    job = _job(app, task, args, kwargs)
    name, options = job["task"], job["options"]
    app.check_jobs([(name, options)])
    _import_task(name)
    job_id = options.get("task_id") or new_id()
    with _current(app):
        sent = _sent(app, job_id, job)
        ended: Any = app.tasks[name].apply(*sent, task_id=job_id, headers=options.get("headers"))
        result = app.AsyncResult(job_id)
        state, value = result.state, result.result
        result.forget()
    if state in PROPAGATE_STATES:
        raise value from ended.result
    if not ended.successful():
        raise ClusterError(f"{name} gave no result: its state is {ended.state}")
    return value


def _job(app: App, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Signature[Any]":
    if isinstance(task, str):
        return app.signature(task, args, kwargs)
    if not isinstance(task, Signature):
        raise TypeError(f"a job is a task's name or a signature, not {brief(task)}")
    if task["task"].startswith("celery.") or any(map(task["options"].get, LINK_OPTIONS)):
        raise ClusterError(
            f"run takes a single job, not {brief(task)}: use a local cluster (make local_start)"
        )
    return task.clone(args, kwargs)


def _import_task(name: str) -> None:
    module = name.rpartition(".")[0]
    try:
        import_module(module)
    except (ImportError, ValueError) as error:
        raise ClusterError(f"cannot import {module!r}, the module of {name}: {error}") from error


def _sent(app: App, job_id: str, job: "Signature[Any]") -> tuple[Any, Any]:
    """Return the arguments of a job as a worker finds them in its message."""
    message = app.amqp.as_task_v2(job_id, job["task"], job["args"], job["kwargs"])
    kind, encoding, body = dumps(message.body, "json")
    received = Message(
        body, headers=message.headers, content_type=kind, content_encoding=encoding, accept={kind}
    )
    try:
        check_message(received)
    except Malformed as error:
        raise failure(error.reason, None) from None
    args, kwargs, _ = received.payload
    return args, kwargs


@contextmanager
def _current(app: App) -> Iterator[None]:
    """Make `app` the current one, as it is in a worker: tasks that call each other belong to it."""
    before = app_or_default()
    app.set_current()
    try:
        yield
    finally:
        before.set_current()


@cache
def _app() -> App:
    app = create("testing", _App, set_as_current=False)
    app.conf.task_store_eager_result = True
    return app


def _needs_cluster() -> NoReturn:
    raise ClusterError(
        "in callers.testing.run a task can neither submit jobs nor read results: "
        "use a local cluster (make local_start)"
    )


class _App(App):
    """An app without connections."""

    def _get_backend(self) -> Any:
        return _Store(app=self, url="redis://")

    def connection_for_write(self, *_args: Any, **_options: Any) -> NoReturn:
        _needs_cluster()

    connection_for_read = connection_for_write


class _Store(RedisBackend):
    """The result store, in this process' memory."""

    @cached_property
    def _blobs(self) -> "_Values":
        return _Values()

    @property
    def client(self) -> NoReturn:
        _needs_cluster()

    def get(self, key: Any) -> Any:
        return self._blobs.of_key.get(key)

    def write(self, task_id: str, payload: Any, *_: Any, **_options: Any) -> bool:
        self._blobs.of_key[self.get_key_for_task(task_id)] = payload
        return True


class _Values(blobs.Blobs):
    """Results and large values by their keys."""

    def __init__(self) -> None:
        self.of_key: dict[Any, Any] = {}

    def put(self, key: str, data: memoryview, *_: Any, **_options: Any) -> blobs.Reference:
        reference = {"key": blobs.PREFIX + key, "size": len(data), "chunk": blobs.CHUNK}
        self.of_key[reference["key"]] = bytes(data)
        return reference

    def get(self, reference: Mapping[str, Any], into: memoryview, **_options: Any) -> None:
        try:
            into[:] = self.of_key[reference["key"]]
        except KeyError:
            raise ValueGone from None

    def delete(self, references: Iterable[blobs.Reference], *others: str | bytes) -> None:
        for key in (*others, *(each["key"] for each in references)):
            self.of_key.pop(key, None)
