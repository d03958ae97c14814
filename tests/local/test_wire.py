"""What stands in Redis, byte for byte: workers and callers of two versions understand each other.

A change here breaks a rolling update, and jobs that wait: docs/decisions.md says why it was made.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import group

from callers.client import Client
from tests.local.local import Local

#: One message, result and dead letter of each kind; `{…}` stands for what is another in each.
GOLDEN = json.loads(Path(__file__).with_name("wire.json").read_text())
#: What is another in each: a machine and its process, an id, a time.
_VARIES = (
    (r"gen\d+@[^\"\\]+", "gen{PROCESS}@{HOST}"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "{ID}"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?", "{TIME}"),
    (r'"traceback": "Traceback(?:[^"\\]|\\.)*"', '"traceback": "{TRACEBACK}"'),
    (r"add@[\w.-]+", "add@{WORKER}"),
)


def fixed(text: bytes) -> str:
    """Return what stands in Redis without what is another in each."""
    told = text.decode()
    for pattern, name in _VARIES:
        told = re.sub(pattern, name, told)
    return told


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What stands in Redis after jobs of each kind."""
    local = Local(tmp_path_factory.mktemp("wire"), "--server-only")
    try:
        local.wait_until_ready()
        with local.client() as client:
            yield {name: fixed(text) for name, text in written(local, client).items()}
    finally:
        local.stop()


def written(local: Local, client: Client) -> dict[str, bytes]:
    """Submit jobs of each kind, run them, and return what was written."""
    redis: Any = client.app.backend.client  # type: ignore[attr-defined]
    task, options = "add.tasks.add", {"task_id": "job"}
    texts: dict[str, bytes] = {}

    def message(name: str) -> None:
        ((_, fields),) = redis.xrange("add:stream:3")
        texts[name] = fields[b"message"]
        redis.delete("add:stream:3")

    client.app.send_task(task, (4, 6), **options)
    message("a plain job")
    client.app.send_task(task, (4, 6), link=client.signature("add.tasks.add", 1), **options)
    message("a job with a callback")
    group([client.signature(task, 4, 6).set(task_id="job")]).apply_async()
    message("a job of a group")
    client.submit(task, 10**4400, 6)
    message("a job with a long integer")
    client.app.send_task(task, (4, 6), countdown=60, **options)
    ((member, _),) = redis.zrange("add:delayed", 0, -1, withscores=True)
    texts["a delayed job"] = member
    redis.delete("add:delayed")

    for name, args in (("a result", (4, 6)), ("a failure", ("four", 6))):
        client.app.send_task(task, args, task_id=name)
    redis.xadd("add:stream:3", {"message": b"no envelope"})
    with local.own_worker("local", "worker", "add"):
        for name in ("a result", "a failure"):
            client.app.AsyncResult(name).get(timeout=30, propagate=False)
            texts[name] = redis.get(f"celery-task-meta-{name}")
        client.call("add.tasks.longtime_add", 1, 2, 0)
    ((_, letter),) = redis.xrange("add:dead")
    texts["a dead letter"] = json.dumps(
        {key.decode(): value.decode() for key, value in letter.items()}
    ).encode()
    return texts


@pytest.mark.parametrize("what", GOLDEN)
def test_what_is_written_is_as_it_was(wire: dict[str, str], what: str) -> None:
    assert wire[what] == GOLDEN[what]


def test_all_that_is_written_is_compared(wire: dict[str, str]) -> None:
    assert wire.keys() == GOLDEN.keys()
