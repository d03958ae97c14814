"""Celery's remote control, where the transport keeps what Celery expects in its workers."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from celery.worker import control

from streams.envelope import Malformed, check

#: Jobs of a queue that are told; there may be a million.
MOST = 1000

_celery: Any = control  # its type stubs leave most of it out
_scheduled_here = _celery.Panel.data["scheduled"]


def scheduled(state: Any, **options: Any) -> list[dict[str, Any]]:
    """List ETA and countdown tasks: those this worker holds, and its queues' in Redis."""
    channel = getattr(state.consumer.task_consumer, "channel", None)
    waiting = _waiting(channel) if hasattr(channel, "waiting_for_their_time") else ()
    return [*_scheduled_here(state, **options), *waiting]


def _waiting(channel: Any) -> Iterator[dict[str, Any]]:
    for due, text in channel.waiting_for_their_time(MOST):
        try:
            message = check(text)
        except Malformed:  # dead when its time has come
            continue
        headers = message["headers"]
        told = ("id", "task", "argsrepr", "kwargsrepr")
        job_id, name, args, kwargs = (headers.get(key) for key in told)
        yield {
            "eta": datetime.fromtimestamp(due, UTC).isoformat(),
            "priority": message["properties"].get("priority"),
            # As Celery tells of a request; no worker has it yet.
            "request": {
                "id": job_id,
                "name": name,
                "type": name,
                "args": args,
                "kwargs": kwargs,
                "hostname": None,
                "time_start": None,
                "worker_pid": None,
                "acknowledged": False,
                "delivery_info": message["properties"]["delivery_info"],
            },
        }


_celery.inspect_command(alias="dump_schedule")(scheduled)
