"""The Celery app of the cluster's workers and callers."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial
from typing import Any

from celery.app import amqp
from celery.app.backends import by_url
from celery.canvas import Signature

import celery_streams
from celery_streams.producer.submission import Submission
from cluster import canvas, options
from cluster.connections import rabbitmq, servers
from cluster.routes import unknown_task
from cluster.values.backend import RedisBackend
from cluster.values.codec import MAX_INLINE_JSON, Put, pack, pack_whole


class AMQP(amqp.AMQP):
    """Packs the arguments in task messages, which may be integers and arrays of any size."""

    Connection = rabbitmq.Connection

    def as_task_v2(
        self,
        task_id: str,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        group_id: Any = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        """Return a message of protocol 2 with packed arguments.

        The body's third part, callbacks and the rest of a chain, has arguments to pack, too.
        """
        store: Any = self.app.backend
        if not isinstance(store, RedisBackend):
            args, kwargs = pack(args), pack(kwargs)
            message = super().as_task_v2(
                task_id, name, args, kwargs, countdown, eta, group_id, *rest, **more
            )
            return _pack_linked(message, pack)
        with ExitStack() as stack:
            put = stack.enter_context(store.arguments_put(task_id))
            if isinstance(args, list | tuple):
                args = tuple(pack_whole(arg, put) for arg in args)
            if isinstance(kwargs, dict):
                kwargs = {key: pack_whole(arg, put) for key, arg in kwargs.items()}
            message = super().as_task_v2(
                task_id, name, args, kwargs, countdown, eta, group_id, *rest, **more
            )
            job_put = partial(_put_for, stack, store.arguments_put)
            body_put = partial(_put_for, stack, store.body_put)
            message = _pack_linked(message, partial(canvas.pack_linked, put_for=body_put), "chord")
            return _pack_linked(message, partial(canvas.pack_linked, put_for=job_put))


def _put_for(
    stack: ExitStack, put: Callable[[str], AbstractContextManager[Put]], job_id: str
) -> Put:
    """Return a function that stores large arguments of a job until `stack` is closed."""
    return stack.enter_context(put(job_id))


def _pack_linked(message: Any, packer: Callable[[Any], Any], *keys: str) -> Any:
    """Return a message with its linked signatures, or only those under `keys`, packed."""
    args, kwargs, embedded = message.body
    embedded = {
        key: packer(value) if key in (keys or embedded) else value
        for key, value in embedded.items()
    }
    return message._replace(body=(args, kwargs, embedded))


class App(celery_streams.Celery):
    """A Celery app that rejects invalid jobs when they are submitted."""

    @cached_property
    def submission(self) -> Submission:
        """Sends plain jobs using the templates of their tasks."""
        priority_number = partial(options.number, amqp=False)
        return Submission(self, priority_number=priority_number, max_json=MAX_INLINE_JSON)

    def _get_backend(self) -> Any:
        # Celery prefers CELERY_RESULT_BACKEND to the configuration, which has already read it.
        conf: Any = self.conf
        found: Any = by_url(servers.results(self.backend_cls or conf.first("result_backend")))
        store, url = found
        return store(app=self, url=url)

    def send_by_celery(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        """Check the options of a job and of its linked jobs, and send it.

        `priority` is high, normal or low, or the broker's number. Raises UnknownTask for a task
        without a worker; ValueError or TypeError for an invalid priority, time or limit.
        """
        # A job sent by a task is part of one that was accepted: its times may have passed.
        if not self.current_worker_task:
            self.check_jobs([(name, {**more, "countdown": countdown, "eta": eta})])
            self.check_jobs(canvas.linked_jobs(more))
        on_rabbitmq = rabbitmq.is_url(self.conf.broker_write_url or self.conf.broker_url)
        more["priority"] = options.number(more.get("priority"), amqp=on_rabbitmq)
        if on_rabbitmq:
            countdown, eta = options.in_whole_seconds(countdown, eta, self.now())
        return super().send_by_celery(name, args, kwargs, countdown, eta, *rest, **more)

    def check_jobs(self, jobs: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Check the names and options of jobs; raises the same errors as `send_task`."""
        for name, more in jobs:
            if not name.startswith("celery."):
                queue = {"queue": more["queue"]} if more.get("queue") else {}
                self.amqp.router.route(queue, name)
            # Celery's own tasks: the route of a map depends on its arguments.
            elif name not in self.tasks:
                raise unknown_task(name, self.conf.task_routes[0])
            options.check(more, self.now(), self.conf.longest_countdown)


def _check_canvas(app: Any, signature: Signature[Any]) -> None:
    if isinstance(app, App) and not app.current_worker_task:
        app.check_jobs(canvas.jobs(signature))


canvas.install_check(_check_canvas)


def create(name: str, kind: type[App] = App, **settings: Any) -> App:
    """Return an app `name`, configured by `celeryconfig`; `settings` are passed to Celery."""
    return kind(
        name,
        amqp=AMQP,
        control="cluster.control:Control",
        task_cls="cluster.task:Task",
        config_source="celeryconfig",
        **settings,
    )
