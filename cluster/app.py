"""The Celery app that every worker and caller of the cluster is."""

from typing import Any

from celery import Celery
from celery.app import amqp

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


def create(name: str, **options: Any) -> Celery:
    """Return an app called `name`, configured by `celeryconfig`; `options` are Celery's."""
    return Celery(
        name,
        amqp=AMQP,
        task_cls="cluster.task:Task",
        config_source="celeryconfig",
        **options,
    )
