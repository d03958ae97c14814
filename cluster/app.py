"""The Celery app that every worker and caller of the cluster is."""

from collections.abc import Iterable
from typing import Any

from celery import Celery
from celery.app import amqp
from celery.canvas import Signature

from cluster import canvas, options, rabbitmq
from cluster.codec import pack


class AMQP(amqp.AMQP):
    """Packs what a task message carries, so that long integers and arrays can be arguments."""

    def as_task_v2(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **more: Any
    ) -> Any:
        """Return the message of protocol 2.

        Callbacks and the rest of a chain travel in the body's third part, with arguments too.
        """
        message = super().as_task_v2(task_id, name, pack(args), pack(kwargs), *rest, **more)
        body_args, body_kwargs, embedded = message.body
        return message._replace(body=(body_args, body_kwargs, pack(embedded)))


class App(Celery[Any]):
    """A Celery app that finds what is wrong with a job where the job is submitted."""

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        """Send a job by name: every job comes this way, from a canvas or from beat, too.

        `priority` is high, normal or low, or the broker's number. Raises UnknownTask for a
        name, of this task or of one linked to it, that leads to no worker; ValueError or
        TypeError for a priority, countdown or ETA that is out of range.
        """
        self.check_names(canvas.linked_names(more))
        options.check_time(countdown, eta, self.now(), self.conf.longest_countdown)
        on_rabbitmq = rabbitmq.is_url(self.conf.broker_write_url or self.conf.broker_url)
        more["priority"] = options.priority(more.get("priority"), amqp=on_rabbitmq)
        if on_rabbitmq:
            countdown, eta = options.in_whole_seconds(countdown, eta, self.now())
        return super().send_task(name, args, kwargs, countdown, eta, *rest, **more)

    def check_names(self, names: Iterable[str]) -> None:
        """Raise UnknownTask for the first name that leads to no worker."""
        for name in names:
            # A router of ours finds the queue of Celery's map in its arguments: checked there.
            if not name.startswith("celery."):
                self.amqp.router.route({}, name)


def _check_canvas(app: Any, signature: Signature[Any]) -> None:
    if isinstance(app, App):
        app.check_names(canvas.task_names(signature))


canvas.send_groups_in_one_write()
canvas.check_first(_check_canvas)


def create(name: str, **settings: Any) -> App:
    """Return an app called `name`, configured by `celeryconfig`; `settings` are Celery's."""
    return App(
        name,
        amqp=AMQP,
        task_cls="cluster.task:Task",
        config_source="celeryconfig",
        **settings,
    )
