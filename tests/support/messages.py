"""Messages of Celery's producers, valid and invalid."""

import base64
import json
from typing import Any

from celery import Celery

JOB = "add-8d3f"
CALL = [[4, 6], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


def body(text: bytes) -> str:
    """Return an encoded body."""
    return base64.b64encode(text).decode()


def message(headers: Any = (), properties: Any = (), **parts: Any) -> dict[str, Any]:
    """Return the envelope of a good task, with other headers, properties or parts."""
    celery: Celery[Any] = Celery(broker="memory://", set_as_current=False)
    task = celery.amqp.as_task_v2(JOB, "add.tasks.add", (4, 6), {})
    celery.close()
    return {
        "body": body(json.dumps(CALL).encode()),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {**task.headers, "origin": "gen1@caller", **dict(headers)},
        "properties": {
            **task.properties,
            "reply_to": "caller",
            "delivery_tag": "tag",
            "delivery_info": {"exchange": "", "routing_key": "add"},
            "body_encoding": "base64",
            **dict(properties),
        },
        **parts,
    }
