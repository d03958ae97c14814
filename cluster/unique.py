"""A job that is submitted once, however often its sender tries."""

from collections.abc import Mapping
from typing import Any

from celery_streams.producer.template import Recorder
from celery_streams.transport.channel import Channel
from celery_streams.transport.queues import UniqueKey
from cluster.app import App


def submit(app: App, connection: Any, entry: Any, options: Mapping[str, Any], note: str) -> str:
    """Submit the job of an entry of beat's schedule, by the id among its options.

    Returns the note of when the job was submitted: this one, or that of an earlier try. RabbitMQ
    knows of none. Raises what `send_task` raises, and redis-py's errors.
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
