"""A program without tasks that submits jobs of each kind and prints their messages."""

import json
import sys
from typing import Any

from celery import group

from callers.client import Client

TASK = "add.tasks.add"


def main() -> None:
    """Print the messages as JSON, and leave one good job and one bad one in the queue."""
    with Client() as client:
        store: Any = client.app.backend
        sys.stdout.write(json.dumps(messages(client, store.client)))
        for name, args in (("a result", (4, 6)), ("a failure", ("four", 6))):
            client.app.send_task(TASK, args, task_id=name)


def messages(client: Client, redis: Any) -> dict[str, str]:
    """Return a message of each kind."""
    found: dict[str, str] = {}

    def note(name: str) -> None:
        ((_, fields),) = redis.xrange("add:stream:3")
        found[name] = fields[b"message"].decode()
        redis.delete("add:stream:3")

    client.app.send_task(TASK, (4, 6), task_id="job")
    note("a plain job")
    client.app.send_task(TASK, (4, 6), task_id="job", link=client.signature(TASK, 1))
    note("a job with a callback")
    group([client.signature(TASK, 4, 6).set(task_id="job")]).apply_async()
    note("a job of a group")
    client.submit(TASK, 10**4400, 6)
    note("a job with a long integer")
    client.app.send_task(TASK, (4, 6), task_id="job", countdown=60)
    ((member, _),) = redis.zrange("add:delayed", 0, -1, withscores=True)
    found["a delayed job"] = member.decode()
    redis.delete("add:delayed")
    return found


if __name__ == "__main__":
    main()
