"""The library of callers: submit jobs by name and wait for their results."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any, Self

from celery.canvas import Signature, group, maybe_signature
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, ResultBase, ResultSet, allow_join_result

from callers import contracts
from callers.batch import WINDOW, BatchRun, check_row, retry_policy, without_numpy
from callers.calls import Tasks
from callers.late import RETRY_INTERVAL, failed_before, jobs_of, why_late
from cluster.app import App, create
from cluster.arguments import brief
from cluster.connections import broker, rabbitmq, servers
from cluster.errors import JobTimeout
from cluster.values.backend import Meta, RedisBackend
from cluster.values.blobs import Progress
from cluster.values.codec import Packed

#: Seconds that a job may take, including its time in the queue, unless the caller says otherwise.
TIMEOUT = 60.0
#: Seconds in which the broker has to answer.
CONNECT_TIMEOUT = 5.0
#: Seconds of one wait, after which the jobs before are checked: one may have failed.
RECHECK_INTERVAL = 2.0
#: Seconds that one operation may take on a silent connection. Longer than kombu's blocking
#: fetch, which takes one second.
OPERATION_TIMEOUT = 2.0

#: A caller's own settings: it has a deadline, while a worker retries for minutes.
_SETTINGS = {
    "result_backend_always_retry": False,
    "result_backend_transport_options": {"retry_policy": {"max_retries": 1, "interval_max": 0.5}},
    "redis_socket_timeout": OPERATION_TIMEOUT,
    "redis_socket_connect_timeout": OPERATION_TIMEOUT,
}
#: Options of both transports, of which each ignores the other's.
_TRANSPORT_OPTIONS = {
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

    Without arguments it finds the cluster by the environment (CELERY_BROKER_URL,
    CELERY_RESULT_BACKEND and the password files), or on this machine. `on_transfer(bytes done,
    bytes in all)` is called for each chunk of a large argument or value that is moved.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        result_backend: str | None = None,
        *,
        on_transfer: Progress | None = None,
    ) -> None:
        #: The Celery app, for everything that this class does not do.
        self.app: App = create("caller", backend=result_backend, set_as_current=False)
        if broker_url:
            self.app.conf.update(servers.broker(broker_url))
            if rabbitmq.is_url(broker_url):
                self.app.conf.update(rabbitmq.settings(self.app.conf.task_queues))
        transport_options = {**self.app.conf.broker_transport_options, **_TRANSPORT_OPTIONS}
        self.app.conf.update(_SETTINGS, broker_transport_options=transport_options)
        self._on_transfer = on_transfer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect to the broker now; raises Unreachable."""
        broker.connect(self.app, CONNECT_TIMEOUT)

    def close(self) -> None:
        """Close the connections; values that were fetched stay usable."""
        backend: Any = self.app.backend
        backend.result_consumer.stop()
        backend.client.connection_pool.disconnect()
        self.app.close()

    @property
    def tasks(self) -> Tasks:
        """The tasks as methods that `call` them: `client.tasks.add.add(4, 6)`."""
        return Tasks(self.call)

    def signature(self, task: str, /, *args: Any, **kwargs: Any) -> Any:
        """Return Celery's signature of a job, for a canvas or with options.

        `client.signature("add.tasks.add", 4, 6).set(priority="high", countdown=10)`
        """
        return self.app.signature(task, args, kwargs)

    def submit(self, task: "str | Signature[Any]", /, *args: Any, **kwargs: Any) -> Any:
        """Submit a job or a canvas, and return Celery's result at once.

        Raises UnknownTask for a task without a queue, and submits nothing; Unreachable if the
        broker does not answer within CONNECT_TIMEOUT seconds or refuses the password; QueueFull;
        ValueError or TypeError for options that are out of range, and for arguments that the task
        would refuse, of a job or of a signature of one (`callers.contracts`).
        """
        if not isinstance(task, str):
            with self._transfers():
                return self._submit_canvas(_checked(task), args, kwargs)
        contracts.check(task, args, kwargs)
        try:
            return self.app.submission.send_task(self._send_by_celery, task, args, kwargs)
        except broker.UNREACHABLE_ERRORS as error:
            raise broker.unreachable(self.app, error) from None

    def _send_by_celery(self, *args: Any, **options: Any) -> Any:
        broker.connect(self.app, CONNECT_TIMEOUT)
        policy = retry_policy(CONNECT_TIMEOUT)
        with self._transfers():
            return self.app.send_by_celery(*args, retry_policy=policy, **options)

    def call(
        self, task: "str | Signature[Any]", /, *args: Any, timeout: float = TIMEOUT, **kwargs: Any
    ) -> Any:
        """Submit a job or a canvas, wait up to `timeout` seconds and return its value.

        A group's value is the list of its members'. Raises what `submit` and `get` raise.
        """
        deadline = monotonic() + check_timeout(timeout)
        if isinstance(task, str):
            contracts.check(task, args, kwargs)
            run = self._run(
                task, [args], kwargs, timeout=timeout, deadline=deadline, cleans_up=False
            )
            [value] = run.values()
            if isinstance(value, BaseException):
                raise value
            return value
        name = _checked(task)["task"]
        with self._transfers(name, deadline, timeout):
            result = self._submit_canvas(task, args, kwargs, timeout)
            value = self._value(result, name, deadline, timeout)
        if "task_id" not in task["options"]:  # the caller may ask again by an id of its choice
            for job in jobs_of(result):
                _forget_if_large(job)
        return value

    def get(
        self,
        result: ResultBase | str,
        timeout: float = TIMEOUT,
        on_ready: Callable[[object], object] | None = None,
    ) -> Any:
        """Wait up to `timeout` seconds for a result, or the job of an id, and return its value.

        `on_ready` is called for each job of a group as it ends, in any order. Raises the job's
        error, or JobTimeout, which says what state the job is in: it stays submitted, and can be
        waited for again. Finding that out takes up to 2.4 s more.
        """
        deadline = monotonic() + check_timeout(timeout)
        if isinstance(result, str) and result.strip():
            result = self.app.AsyncResult(result)
        if not isinstance(result, ResultBase):
            raise TypeError(f"get takes what submit returned, or a job's id, not {brief(result)}")
        if on_ready:
            for job in jobs_of(result):
                job.then(on_ready, on_error=on_ready)
        with self._transfers("the job", deadline, timeout):
            return self._value(result, "the job", deadline, timeout)

    def submit_many(self, task: str, list_of_args: Iterable[Sequence[Any]]) -> list[Any]:
        """Submit a job for each tuple of arguments, in bulk, and return Celery's results.

        Raises what `submit` raises; then some of the jobs may have been submitted.
        """
        rows = [*list_of_args]
        for row in rows:
            check_row(row)
            contracts.check(task, row, {})
        jobs = [self.signature(task, *row) for row in rows]
        return self.submit(group(jobs)).results if jobs else []

    def map(
        self,
        task: str,
        list_of_args: Iterable[Sequence[Any]],
        timeout: float = TIMEOUT,
        *,
        bundle: bool = True,
    ) -> list[Any]:
        """Call a task with each tuple of arguments, in bulk, and return the values in order.

        The error of a call stands in its value's place: what it raised, what is wrong with its
        arguments, or JobTimeout. `timeout` is in seconds, for all calls together. Quick calls
        travel many in one job, unless `bundle` is false. Raises UnknownTask, Unreachable and
        QueueFull as `submit` does.
        """
        deadline = monotonic() + check_timeout(timeout)
        run = self._run(task, list_of_args, timeout=timeout, deadline=deadline, bundle=bundle)
        return [*run.values()]

    def imap(
        self,
        task: str,
        iterable_of_args: Iterable[Sequence[Any]],
        timeout: float = TIMEOUT,
        window: int = WINDOW,
        *,
        bundle: bool = True,
    ) -> Iterator[Any]:
        """Call a task with each tuple of arguments, and yield the values in order.

        At most `window` calls are submitted and not yet yielded, so the arguments may be endless.
        Errors stand in their values' places, and quick calls travel together, as with `map`.
        `timeout` is in seconds, for each call from its submission. If the caller stops early,
        jobs that have not started are revoked.
        """
        check_timeout(timeout)
        if type(window) is not int or window < 1:
            raise ValueError(f"window must be a number of jobs above zero, not {brief(window)}")
        run = self._run(task, iterable_of_args, timeout=timeout, window=window, bundle=bundle)
        return run.values()

    def _run(
        self,
        task: str,
        rows: Iterable[Sequence[Any]],
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float,
        deadline: float = math.inf,
        window: int = WINDOW,
        cleans_up: bool = True,
        bundle: bool = True,
    ) -> BatchRun:
        if not self.app.submission.knows(task):
            broker.connect(self.app, min(timeout, CONNECT_TIMEOUT))
            self.app.check_jobs([(task, {})])
            self.app.submission.learn(task, {}, kwargs)
        return BatchRun(
            self.app,
            task,
            rows,
            kwargs,
            window=window,
            timeout=timeout,
            deadline=deadline,
            transfers=self._transfers,
            why_late=why_late,
            cleans_up=cleans_up,
            bundle=bundle,
        )

    @contextmanager
    def _transfers(
        self, name: str = "", deadline: float = math.inf, timeout: float = math.inf
    ) -> Iterator[None]:
        """Report the progress of large values; raise JobTimeout at the deadline."""

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
        seconds = CONNECT_TIMEOUT if deadline == math.inf else max(deadline - monotonic(), 0)
        with store.report_transfers(progress, monotonic() + seconds):
            yield

    def _submit_canvas(
        self,
        task: "Signature[Any]",
        args: Sequence[Any],
        kwargs: Any,
        timeout: float = CONNECT_TIMEOUT,
    ) -> Any:
        # Without an app, a map or chunks would go to Celery's current one.
        signature: Any = maybe_signature(task, app=self.app)
        contracts.check_signature(signature, args, kwargs)
        broker.connect(self.app, min(timeout, CONNECT_TIMEOUT))
        try:
            result = signature.apply_async(tuple(args), kwargs)
        except broker.UNREACHABLE_ERRORS as error:
            raise broker.unreachable(self.app, error) from None
        if result is None:
            raise ValueError("the canvas is empty: it has no job whose value could be waited for")
        return result

    def _value(
        self, result: Any, name: str, deadline: float, timeout: float, before: Any = None
    ) -> Any:
        """Return the value of a job, or the list of a group's; or raise the error.

        `before` is the job before a group, which its members do not know.
        """
        before = result.parent or before
        if isinstance(result, ResultSet):
            members = result.results or ()
            return [self._value(member, name, deadline, timeout, before) for member in members]
        # In a task, Celery refuses to wait, for a wait may have no deadline; this one has.
        with allow_join_result():
            self._wait(result, name, deadline, timeout, before)
            value = result.get()
        if isinstance(value, Packed):
            raise without_numpy(value)
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

        Raises JobTimeout, or the error of a job before: then this one never starts.
        """
        while True:
            left = deadline - monotonic()
            try:
                if _has_ended(result, left):
                    return
                failed = failed_before(before)
                if left <= 0 and not failed:
                    raise JobTimeout(why_late(result, name, timeout))
            except broker.UNREACHABLE_ERRORS as error:
                if left <= 0:
                    raise broker.unreachable(self.app, error) from None
                sleep(min(left, RETRY_INTERVAL))
            else:
                if failed:
                    failed.get()


def _forget_if_large(result: Any) -> None:
    """Free the memory of a large value: no one else knows the job's id."""
    known = result._cache  # noqa: SLF001 - the value was read from it
    if isinstance(known, Meta):
        with suppress(*broker.UNREACHABLE_ERRORS):
            result.backend.remove(result.id, known)


def _has_ended(result: "AsyncResult[Any]", seconds: float) -> bool:
    """Wait up to `seconds`, or RECHECK_INTERVAL; return True if the job has ended."""
    try:
        # A job's own error must not look like one of the wait.
        result.get(timeout=max(0, min(RECHECK_INTERVAL, seconds)), propagate=False)
    except CeleryTimeout as late:
        if late.__cause__:  # the result store is unreachable
            raise late.__cause__ from None
        return False
    return True


def check_timeout(seconds: float) -> float:
    """Return `seconds`; raises TypeError or ValueError unless it is finite and above zero."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {brief(seconds)}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"timeout must be a number of seconds above zero, not {seconds}")
    return seconds


def _checked(task: Any) -> Any:
    """Return a signature, or the dict of its JSON; raises TypeError for anything else."""
    if (
        isinstance(task, Mapping)
        and isinstance(task.get("task"), str)
        and isinstance(task.get("options"), Mapping)
        and {"args", "kwargs"} <= task.keys()
    ):
        return task
    raise TypeError(f"a job is a task's name or a signature, not {brief(task)}")
