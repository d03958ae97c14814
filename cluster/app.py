"""The Celery app that every worker and caller of the cluster is."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial
from typing import Any

from celery.app import amqp
from celery.app.backends import by_url
from celery.canvas import Signature

import celery_streams
from celery_streams.producer.submission import Submission
from cluster import canvas, options, rabbitmq, servers
from cluster.backend import RedisBackend
from cluster.codec import INLINE_JSON, Put, pack, pack_whole
from cluster.routes import unknown_task


class AMQP(amqp.AMQP):
    """Packs what a task message carries: arguments may be long integers and arrays of any size."""

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
        """Return the message of protocol 2.

        Callbacks and the rest of a chain travel in the body's third part, with arguments too.
        """
        store: Any = self.app.backend
        if not isinstance(store, RedisBackend):
            args, kwargs = pack(args), pack(kwargs)
            message = super().as_task_v2(
                task_id, name, args, kwargs, countdown, eta, group_id, *rest, **more
            )
            return _with_embedded(message, pack)
        with ExitStack() as stack:
            put = stack.enter_context(store.arguments_put(task_id))
            if isinstance(args, list | tuple):
                args = tuple(pack_whole(arg, put) for arg in args)
            if isinstance(kwargs, dict):
                kwargs = {key: pack_whole(arg, put) for key, arg in kwargs.items()}
            message = super().as_task_v2(
                task_id, name, args, kwargs, countdown, eta, group_id, *rest, **more
            )
            own = partial(_put_for, stack, store.arguments_put)
            body = partial(_put_for, stack, store.body_put)
            message = _with_embedded(message, partial(canvas.pack_linked, put_for=body), "chord")
            return _with_embedded(message, partial(canvas.pack_linked, put_for=own))


def _put_for(
    stack: ExitStack, put: Callable[[str], AbstractContextManager[Put]], job_id: str
) -> Put:
    """Return what stores the large arguments of a job, for as long as a message is made."""
    return stack.enter_context(put(job_id))


def _with_embedded(message: Any, packed: Callable[[Any], Any], *keys: str) -> Any:
    """Return a message with its callbacks, or those under the keys, packed."""
    args, kwargs, embedded = message.body
    embedded = {
        key: packed(value) if key in (keys or embedded) else value
        for key, value in embedded.items()
    }
    return message._replace(body=(args, kwargs, embedded))


class App(celery_streams.Celery):
    """A Celery app that finds what is wrong with a job where the job is submitted."""

    result_store = servers.STORE

    @cached_property
    def submission(self) -> Submission:
        """Sends plain jobs by their tasks' templates."""
        number = partial(options.number, amqp=False)
        return Submission(self, priority_number=number, max_json=INLINE_JSON)

    def _get_backend(self) -> Any:
        # Celery prefers the variable CELERY_RESULT_BACKEND to the configuration, which read it.
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
        """Check the options of a job, and of those linked to it, and send it.

        `priority` is high, normal or low, or the broker's number. Raises UnknownTask for a task
        without a worker; ValueError or TypeError for a priority, time or limit out of range.
        """
        # A worker sends a part of a job that was accepted: its times may have passed.
        if not self.current_worker_task:
            self.check_jobs([(name, {**more, "countdown": countdown, "eta": eta})])
            self.check_jobs(canvas.linked_jobs(more))
        on_rabbitmq = rabbitmq.is_url(self.conf.broker_write_url or self.conf.broker_url)
        more["priority"] = options.number(more.get("priority"), amqp=on_rabbitmq)
        if on_rabbitmq:
            countdown, eta = options.in_whole_seconds(countdown, eta, self.now())
        return super().send_by_celery(name, args, kwargs, countdown, eta, *rest, **more)

    def check_jobs(self, jobs: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Check the names and the options of jobs; raises what `send_task` raises."""
        for name, more in jobs:
            if not name.startswith("celery."):
                queue = {"queue": more["queue"]} if more.get("queue") else {}
                self.amqp.router.route(queue, name)
            # Celery's own: a router of ours finds the queue of a map in its arguments.
            elif name not in self.tasks:
                raise unknown_task(name, self.conf.task_routes[0])
            options.check(more, self.now(), self.conf.longest_countdown)


def _check_canvas(app: Any, signature: Signature[Any]) -> None:
    if isinstance(app, App) and not app.current_worker_task:
        app.check_jobs(canvas.jobs(signature))


canvas.check_first(_check_canvas)


def create(name: str, **settings: Any) -> App:
    """Return an app called `name`, configured by `celeryconfig`; `settings` are Celery's."""
    return App(
        name,
        amqp=AMQP,
        control="cluster.control:Control",
        task_cls="cluster.task:Task",
        config_source="celeryconfig",
        **settings,
    )
