"""Submits a job of beat once, even if beat retries."""

from collections.abc import Mapping
from typing import Any

from celery_streams.producer.template import Recorder
from celery_streams.transport.channel import Channel
from celery_streams.transport.queues import UniqueKey
from cluster.app import App


def submit(app: App, connection: Any, entry: Any, options: Mapping[str, Any], note: str) -> str:
    """Submit the job of an entry of beat's schedule, under the `task_id` in `options`.

    Return `note`, or that of an earlier attempt if it submitted the job. On RabbitMQ, each call
    submits it. Raises the errors of `send_task` and redis-py.
    """
    channel = connection.default_channel
    if not isinstance(channel, Channel):
        producer = app.amqp.Producer(connection, auto_declare=False)
        app.send_task(entry.task, entry.args, entry.kwargs, producer=producer, **options)
        return note
    recorder = Recorder(channel, auto_declare=False)
    app.send_task(entry.task, entry.args, entry.kwargs, producer=recorder, **options)
    unique = UniqueKey(entry.name, options["task_id"], note)
    return channel.publish_once(*recorder.recorded, unique)
