"""The one place where callers talk to Celery: submit jobs by name, wait for results."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from celery.canvas import Signature, maybe_signature
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, ResultBase, ResultSet, allow_join_result
from celery.states import PENDING, PROPAGATE_STATES, STARTED, SUCCESS

from callers.bulk import WINDOW, Bulk, Way
from cluster import broker, rabbitmq, servers
from cluster.app import App, create
from cluster.arguments import brief
from cluster.backend import Meta, RedisBackend
from cluster.blobs import Progress
from cluster.codec import Packed
from cluster.errors import ClusterError, JobTimeout
from cluster.submission import Template, new_id

#: Seconds a job may take, waiting in its queue included, where the caller names no time.
TIMEOUT = 60.0
#: Seconds to try to reach the broker before the caller is told.
CONNECT_TIMEOUT = 5.0
#: Seconds of one wait: between two, a job that comes before is looked at, which may have failed.
NOTICE_TIMEOUT = 2.0
#: Seconds between two tries to read a result while Redis is away.
RETRY_INTERVAL = 0.2
#: Seconds that workers have to answer when a job is late, and to tell that they run it.
ANSWER_TIMEOUT = 1.2

#: Seconds that one operation may take on a connection that has gone silent. Longer than a
#: blocking fetch of kombu's, which takes one second.
OPERATION_TIMEOUT = 2.0

#: Where a caller's settings differ from a worker's: it has a deadline, and a person waiting.
#: A worker tries for minutes, and waits for ever.
_IMPATIENT = {
    "result_backend_always_retry": False,
    "result_backend_transport_options": {"retry_policy": {"max_retries": 1, "interval_max": 0.5}},
    "redis_socket_timeout": OPERATION_TIMEOUT,
    "redis_socket_connect_timeout": OPERATION_TIMEOUT,
}
#: Of both transports: each takes what is its own.
_IMPATIENT_TRANSPORT = {
    "socket_timeout": OPERATION_TIMEOUT,  # Redis
    "socket_connect_timeout": OPERATION_TIMEOUT,
    "connect_timeout": OPERATION_TIMEOUT,  # RabbitMQ
    "read_timeout": OPERATION_TIMEOUT,
    "write_timeout": OPERATION_TIMEOUT,
    "max_retries": 1,
    "interval_start": 0.1,
}


class Client:
    """Submits jobs to the cluster and fetches their results.

    Without arguments it finds the cluster by the environment, as every part of it does
    (CELERY_BROKER_URL, CELERY_RESULT_BACKEND and the password files), or on this machine.
    `on_transfer(bytes done, bytes in all)` is called for each chunk of a large argument that
    is sent and of a large value that is fetched.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        result_backend: str | None = None,
        *,
        on_transfer: Progress | None = None,
    ) -> None:
        #: The plain Celery app, for whatever Celery can do beyond this class.
        self.app: App = create("caller", backend=result_backend, set_as_current=False)
        if broker_url:
            self.app.conf.update(servers.broker(broker_url))
            if rabbitmq.is_url(broker_url):
                self.app.conf.update(rabbitmq.settings(self.app.conf.task_queues))
        transport_options = {**self.app.conf.broker_transport_options, **_IMPATIENT_TRANSPORT}
        self.app.conf.update(_IMPATIENT, broker_transport_options=transport_options)
        self._on_transfer = on_transfer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Find out at once whether the broker answers; raises Unreachable if not."""
        broker.connect(self.app, CONNECT_TIMEOUT)

    def close(self) -> None:
        """Close the connections; results that were fetched stay usable."""
        backend: Any = self.app.backend
        backend.result_consumer.stop()
        backend.client.connection_pool.disconnect()
        self.app.close()

    def signature(self, task: str, *args: Any, **kwargs: Any) -> Any:
        """Return Celery's signature of a job: a part of a canvas, or a job with options.

        `client.signature("add.tasks.add", 4, 6).set(priority="high", countdown=10)`
        """
        return self.app.signature(task, args, kwargs)

    def submit(self, task: "str | Signature[Any]", *args: Any, **kwargs: Any) -> Any:
        """Submit a job, or a canvas, and return at once, with Celery's handle on its result.

        Raises UnknownTask for a name that leads to no queue, with nothing submitted;
        Unreachable if the broker does not answer within CONNECT_TIMEOUT seconds or refuses
        the password; ValueError or TypeError for options that are out of range.
        """
        options = {"task_id": new_id()}
        if not isinstance(task, str):
            _checked(task)
        if isinstance(task, str) and self.app.submission.send(task, args, kwargs, options):
            return self.app.AsyncResult(options["task_id"])
        broker.connect(self.app, CONNECT_TIMEOUT)
        with self._transfers():
            return self._submit(task, args, kwargs, CONNECT_TIMEOUT, **options)

    def call(
        self, task: "str | Signature[Any]", *args: Any, timeout: float = TIMEOUT, **kwargs: Any
    ) -> Any:
        """Submit a job, or a canvas, wait up to `timeout` seconds and return its value.

        A group's value is the list of its members'. Raises what `submit` and `get` raise.
        """
        deadline = monotonic() + check_timeout(timeout)
        name = task if isinstance(task, str) else _checked(task)["task"]
        result, options = None, {"task_id": new_id()}
        template = self.app.submission.template(task, {}) if isinstance(task, str) else None
        if template:
            result, meta = self._call_plainly(template, args, kwargs, deadline, **options)
            if type(meta) is dict and meta["status"] == SUCCESS:
                return meta["result"]
        if result is None:
            broker.connect(self.app, min(timeout, CONNECT_TIMEOUT))
        with self._transfers(name, deadline, timeout):
            if result is None:
                result = self._submit(task, args, kwargs, timeout, **options)
            value = self._value(result, name, deadline, timeout)
        # An id that the caller has chosen is there to ask again.
        if isinstance(task, str) or "task_id" not in task.options:
            for job in _jobs(result):
                self._forget_if_large(job)
        return value

    def _call_plainly(
        self,
        template: Template,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        deadline: float,
        task_id: str,
    ) -> tuple[Any, Any]:
        """Submit a plain job and wait: return its result, and what became of it, None if late.

        Celery's handle on a result takes longer than the rest of it, and is made where a
        value is not at hand. There is no result where the job is not plain.
        """
        store: Any = self.app.backend
        with store.result_consumer.bulk(deadline - monotonic()) as bulk:
            bulk.expect([task_id])
            options = {"task_id": task_id, "reply_to": bulk.oid}
            job = self.app.submission.job(args, kwargs, options)
            if job is None or not self.app.submission.send_by(template, job):
                return None, None
            meta = bulk.ended.popleft() if bulk.wait(deadline) else None
        if type(meta) is dict and meta["status"] == SUCCESS:
            return None, meta
        result = self.app.AsyncResult(task_id)
        if meta:
            store.result_consumer.give(result, meta)
        return result, meta

    def get(
        self,
        result: ResultBase | str,
        timeout: float = TIMEOUT,
        on_ready: Callable[[object], object] | None = None,
    ) -> Any:
        """Wait up to `timeout` seconds for what was submitted, or a job's id, and return its value.

        `on_ready` is called for each job of a group as it ends, in any order. Raises what
        the job raised, or JobTimeout, which says what became of the job: it stays submitted,
        and its result can be had by its id. To find that out, JobTimeout comes up to twice
        ANSWER_TIMEOUT later.
        """
        deadline = monotonic() + check_timeout(timeout)
        if isinstance(result, str) and result.strip():
            result = self.app.AsyncResult(result)
        if not isinstance(result, ResultBase):
            raise TypeError(f"get takes what submit returned, or a job's id, not {brief(result)}")
        if on_ready:
            for job in _jobs(result):
                job.then(on_ready, on_error=on_ready)
        with self._transfers("the job", deadline, timeout):
            return self._value(result, "the job", deadline, timeout)

    def map(
        self, task: str, list_of_args: Iterable[Sequence[Any]], timeout: float = TIMEOUT
    ) -> list[Any]:
        """Submit a job for each tuple of arguments, in bulk, and return the values in order.

        A job that fails raises nothing here: its error stands in its value's place, that of the
        job, or of arguments that cannot travel, or JobTimeout. `timeout` is in seconds, for all
        of it. Raises UnknownTask, Unreachable and QueueFull as `submit` does.
        """
        deadline = monotonic() + check_timeout(timeout)
        return [*self._bulk(task, list_of_args, WINDOW, timeout, deadline)]

    def imap(
        self,
        task: str,
        iterable_of_args: Iterable[Sequence[Any]],
        timeout: float = TIMEOUT,
        window: int = WINDOW,
    ) -> Iterator[Any]:
        """Submit a job for each tuple of arguments, and yield the values in order, as they come.

        Arguments are taken as jobs end: at most `window` are submitted and not yet yielded, so
        there may be any number of them, without end. A job that fails raises nothing, as with
        `map`. `timeout` is in seconds, for each job from its submission on. Where the caller
        stops before the end, by Ctrl-C too, the jobs that have not begun are revoked.
        """
        check_timeout(timeout)
        if window < 1:
            raise ValueError(f"window must be a number of jobs above zero, not {window}")
        return self._bulk(task, iterable_of_args, window, timeout)

    def _bulk(
        self,
        task: str,
        rows: Iterable[Sequence[Any]],
        window: int,
        timeout: float,
        deadline: float = math.inf,
    ) -> Iterator[Any]:
        if not self.app.submission.template(task, {}):
            broker.connect(self.app, min(timeout, CONNECT_TIMEOUT))
            self.app.check_jobs([(task, {})])
            self.app.submission.learn(task, {})
        way = Way(self._send, self._transfers, self._why_late)
        jobs = Bulk(self.app, way, task, rows, window=window, timeout=timeout, deadline=deadline)
        return jobs.values()

    @contextmanager
    def _transfers(
        self, name: str = "", deadline: float = math.inf, timeout: float = math.inf
    ) -> Iterator[None]:
        """Show what is moved; raise JobTimeout where that goes on past the deadline."""

        def progress(done: int, size: int) -> None:
            if monotonic() > deadline:
                raise JobTimeout(
                    f"{name} gave no result within {timeout:g} s: {done} of {size} bytes of a "
                    "large value were moved by then"
                )
            if self._on_transfer:
                self._on_transfer(done, size)

        store: Any = self.app.backend
        if not isinstance(store, RedisBackend):
            yield
            return
        patience = CONNECT_TIMEOUT if deadline == math.inf else max(deadline - monotonic(), 0)
        with store.transfers_shown(progress, monotonic() + patience):
            yield

    def _forget_if_large(self, result: Any) -> None:
        """Free the memory of Redis early: nobody knows the job's id."""
        known = result._cache  # noqa: SLF001 - what the value was read from
        if isinstance(known, Meta):
            with suppress(*broker.AWAY):
                result.backend.remove(result.id, known)

    def _submit(
        self,
        task: "str | Signature[Any]",
        args: Sequence[Any],
        kwargs: Any,
        timeout: float,
        **options: Any,
    ) -> Any:
        """Submit a job, or a canvas; `options` are for a job alone."""
        if isinstance(task, str):
            return self._send(task, args, kwargs, timeout, **options)
        # A map or chunks made without an app would go to Celery's current one, not to ours.
        signature: Any = maybe_signature(task, app=self.app)
        try:
            result = signature.apply_async(tuple(args), kwargs)
        except broker.AWAY as error:
            raise broker.unreachable(self.app, error) from None
        if result is None:
            raise ValueError("the canvas is empty: it has no job whose value could be waited for")
        return result

    def _send(
        self, task: str, args: Sequence[Any], kwargs: dict[str, Any], timeout: float, **options: Any
    ) -> Any:
        # A try on a silent connection and the pause before the next take three seconds.
        policy = {"max_retries": max(1, int(timeout / 3))}
        try:
            return self.app.send_task(task, args, kwargs, retry_policy=policy, **options)
        except broker.AWAY as error:
            raise broker.unreachable(self.app, error) from None

    def _value(
        self, result: Any, name: str, deadline: float, timeout: float, before: Any = None
    ) -> Any:
        """Return the value of a job, or the list of those of a group, or raise the error.

        `before` is what a group's members, which do not know it, come after.
        """
        before = result.parent or before
        if isinstance(result, ResultSet):
            members = result.results or ()
            return [self._value(member, name, deadline, timeout, before) for member in members]
        # Inside a task, too: there is a deadline, which Celery's own `get` may lack.
        with allow_join_result():
            self._wait(result, name, deadline, timeout, before)
            value = result.get()
        if isinstance(value, Packed):
            raise ClusterError(f"the value is an array ({value!r}): install numpy here")
        return value

    def _wait(
        self,
        result: "AsyncResult[Any]",
        name: str,
        deadline: float,
        timeout: float,
        before: Any,
    ) -> None:
        """Wait until the job has ended.

        Raises JobTimeout at the deadline, or the error of a job before, after which this
        one never begins.
        """
        while True:
            left = deadline - monotonic()
            try:
                if self._is_done(result, left):
                    return
                failed = _failed(before)
                if left <= 0 and not failed:
                    raise JobTimeout(self._why_late(result, name, timeout))
            except broker.AWAY as error:
                if left <= 0:
                    raise broker.unreachable(self.app, error) from None
                sleep(min(left, RETRY_INTERVAL))
            else:
                if failed:
                    failed.get()

    def _is_done(self, result: "AsyncResult[Any]", left: float) -> bool:
        """Wait for a notice, but no longer than is left; tell whether the job has ended."""
        try:
            # Not to be raised here: a job's own error would look like one of the wait.
            result.get(timeout=max(0, min(NOTICE_TIMEOUT, left)), propagate=False)
        except CeleryTimeout as late:
            if late.__cause__:  # the result store does not answer
                raise late.__cause__ from None
            return False
        return True

    def _why_late(self, result: "AsyncResult[Any]", name: str, timeout: float) -> str:
        late = f"{name} gave no result within {timeout:g} s"
        try:
            job = _first_unfinished(result)
            if _runs(job):
                return f"{late}: job {job.id} still runs{_place(job)}"
            if name not in self.app.conf.task_routes[0]:
                return (
                    f"{late}: nothing is known of job {job.id}, which waits in a queue or for its "
                    "time, was never submitted, or ended so long ago that its result has expired"
                )
            queue = self.app.amqp.router.route({}, name)["queue"].name
            answers = self.app.control.inspect(timeout=ANSWER_TIMEOUT).active_queues() or {}
        except (OSError, *broker.AWAY) as error:
            return f"{late}: the broker went away ({error})"
        workers = [name for name, queues in answers.items() if queue in _names(queues)]
        if not workers:
            return f"{late}: no worker consumes the queue {queue!r}, where job {job.id} stays"
        return f"{late}: job {job.id} waits in the queue {queue!r} of {len(workers)} worker(s)"


def _place(job: "AsyncResult[Any]") -> str:
    """Return where a job runs, if that is stored: a task may say something else of itself."""
    info: Any = job.info
    return f" on {info['hostname']}" if isinstance(info, dict) and "hostname" in info else ""


def _runs(job: "AsyncResult[Any]") -> bool:
    """Tell whether a job runs; one that began just now is known to a second later."""
    deadline = monotonic() + ANSWER_TIMEOUT
    while True:
        state: str = job.state
        if state != PENDING or monotonic() >= deadline:
            return state == STARTED
        sleep(RETRY_INTERVAL)


def check_timeout(seconds: float) -> float:
    """Return `seconds` if one can wait that long; ValueError if not above zero, or for ever."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {brief(seconds)}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"timeout must be a number of seconds above zero, not {seconds}")
    return seconds


def _jobs(result: Any) -> Iterator["AsyncResult[Any]"]:
    """Yield the jobs that a result is made of."""
    if isinstance(result, ResultSet):
        for member in result.results or ():
            yield from _jobs(member)
    else:
        yield result


def _failed(result: Any) -> "AsyncResult[Any] | None":
    """Return a job that failed, of those that a result is made of or comes after.

    Celery tells the rest of a chain of it, but not a group at its end, or the chord around.
    """
    if result is None:
        return None
    if isinstance(result, ResultSet):
        failed = (_failed(member) for member in result.results or ())
        return next((job for job in failed if job), None) or _failed(result.parent)
    return result if result.state in PROPAGATE_STATES else _failed(result.parent)


def _first_unfinished(result: "AsyncResult[Any]") -> "AsyncResult[Any]":
    """Return the job that all others wait for: a chain's result is its last job's."""
    parent: Any = result.parent
    while parent is not None and not parent.ready():
        result = next(job for job in _jobs(parent) if not job.ready())
        parent = result.parent
    return result


def _checked(task: Any) -> "Signature[Any]":
    """Return a signature; raises TypeError for anything else."""
    if isinstance(task, Mapping) and isinstance(task.get("task"), str):
        return task  # type: ignore[return-value]  # as JSON, too
    raise TypeError(f"a job is a task's name or a signature, not {brief(task)}")


def _names(queues: Sequence[Any]) -> set[str]:
    return {queue["name"] for queue in queues}
