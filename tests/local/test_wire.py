"""The contents of Redis, byte for byte, on which workers and callers of two versions agree.

A change here breaks rolling updates and waiting jobs: docs/decisions.md gives its reason.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callers.client import Client
from tests.support.local import Local
from tests.support.waiting import eventually

#: One message, result and dead letter of each kind, with `{…}` for the parts that vary.
GOLDEN = json.loads(Path(__file__).with_name("wire.json").read_text())
#: Patterns of the parts that vary: a machine and its process, an id, a time.
_VARIES = (
    (r"gen\d+@[^\"\\]+", "gen{PROCESS}@{HOST}"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "{ID}"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?", "{TIME}"),
    (r'"traceback": "Traceback(?:[^"\\]|\\.)*"', '"traceback": "{TRACEBACK}"'),
    (r"add@[\w.-]+", "add@{WORKER}"),
)


def fixed(text: str) -> str:
    """Return a text from Redis with placeholders for the parts that vary."""
    for pattern, name in _VARIES:
        text = re.sub(pattern, name, text)
    return text


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The contents of Redis after jobs of each kind."""
    local = Local(tmp_path_factory.mktemp("wire"), "--server-only")
    try:
        local.wait_until_ready()
        with local.client() as client:
            yield {name: fixed(text) for name, text in written(local, client).items()}
    finally:
        local.stop()


def written(local: Local, client: Client) -> dict[str, str]:
    """Submit and run jobs of each kind, and return the texts in Redis."""
    store: Any = client.app.backend
    redis = store.client
    done = local.command("tests.support.wire")
    assert done.returncode == 0, done.stderr
    texts: dict[str, str] = json.loads(done.stdout)
    redis.xadd("add:stream:3", {"message": b"no envelope"})
    with local.own_worker("local", "worker", "add"):
        for name in ("a result", "a failure"):
            client.app.AsyncResult(name).get(timeout=30, propagate=False)
            texts[name] = redis.get(f"celery-task-meta-{name}").decode()
        eventually("the dead letter is there", lambda: redis.xlen("add:dead"))
    ((_, letter),) = redis.xrange("add:dead")
    texts["a dead letter"] = json.dumps(
        {key.decode(): value.decode() for key, value in letter.items()}
    )
    return texts


@pytest.mark.parametrize("what", GOLDEN)
def test_what_is_written_is_as_it_was(wire: dict[str, str], what: str) -> None:
    assert wire[what] == GOLDEN[what]


def test_all_that_is_written_is_compared(wire: dict[str, str]) -> None:
    assert wire.keys() == GOLDEN.keys()
