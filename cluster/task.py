"""Base class of the cluster's tasks."""

from contextlib import suppress
from typing import Any

from celery.app.task import Task as CeleryTask
from redis.exceptions import RedisError

from celery_streams.worker.request import out_of_memory
from cluster.values.backend import RedisBackend
from cluster.values.codec import are_scalars, pack, pack_whole


class Task(CeleryTask[Any, Any]):
    """A task whose arguments and result may be integers and arrays of any size.

    A transient error, of a connection or a time-out, is retried after a random delay of up to
    1, 2 and 4 s, so that many failed jobs do not run again at once
    ("full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    autoretry_for = (ConnectionError, TimeoutError)
    retry_backoff = True
    retry_backoff_max = 60
    retry_jitter = True
    plain_calls: tuple[Any, ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; if a worker calls it, unpack its arguments and pack its result."""
        request: Any = self.request
        if request.called_directly or getattr(request, "running", False):
            return super().__call__(*args, **kwargs)
        request.running = True  # a task that calls itself is a plain function call
        try:
            if are_scalars(*args, *kwargs.values()):
                value = self.run(*args, **kwargs)
                return value if are_scalars(value) else self.encode_result(value)
            store: Any = self.backend
            if isinstance(store, RedisBackend):
                args, kwargs = store.fetch((args, kwargs), request.id)
            return self.encode_result(self.run(*args, **kwargs))
        except MemoryError as error:
            raise out_of_memory(error) from None

    def encode_result(self, value: Any) -> Any:
        """Return a value of the running job in the form in which it is stored."""
        store: Any = self.backend
        if not isinstance(store, RedisBackend):
            return pack(value)
        request: Any = self.request
        with store.results_put(request.id) as put:
            return pack_whole(value, put)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Remove the job's large arguments from Redis: its result is stored."""
        self._forget(task_id, args, kwargs)

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Remove the job's large arguments from Redis: its error is stored."""
        self._forget(task_id, args, kwargs)

    def _forget(self, job_id: str, args: Any, kwargs: Any) -> None:
        store: Any = self.backend
        if isinstance(store, RedisBackend) and not are_scalars(*args, *kwargs.values()):
            with suppress(RedisError):  # the job has ended, and its arguments expire anyway
                store.forget_arguments(job_id, (args, kwargs))


# Values of a map are packed together (celery_streams.producer.starmap), and the arguments of calls
# in a bundle are small (celery_streams.worker.bundle).
Task.plain_calls = (Task.__call__, Task.on_success, Task.on_failure)
