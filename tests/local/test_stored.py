"""Stored results of any origin, as the cluster's callers read them."""

import json
from typing import Any

import pytest

from callers import batch
from callers.bundling import Bundling
from callers.client import Client
from cluster.errors import Unreadable
from tests.support.bundling import no_bundles
from tests.support.local import Local

ADD = "add.tasks.add"


def store(client: Client, job_id: str, stored: Any) -> None:
    """Store a payload that no worker would."""
    backend: Any = client.app.backend
    payload = stored if isinstance(stored, bytes) else json.dumps(stored)
    backend.client.set(f"celery-task-meta-{job_id}", payload, ex=300)


def failure(job_id: str, module: Any, name: str, *args: Any) -> dict[str, Any]:
    """Return the stored form of a failure."""
    error = {"exc_type": name, "exc_module": module, "exc_message": args}
    return {"status": "FAILURE", "result": error, "traceback": None, "task_id": job_id}


@pytest.mark.parametrize(
    ("module", "name", "args", "printed"),
    [
        ("builtins", "SystemExit", [0], "0"),
        ("builtins", "SystemExit", [], "SystemExit"),
        ("builtins", "KeyboardInterrupt", ["stopped"], "stopped"),
        ("builtins", "GeneratorExit", [], "GeneratorExit"),
        ("builtins", "BaseExceptionGroup", ["some", []], "('some', [])"),
        ("click.exceptions", "Exit", [0], "0"),
        ("click.exceptions", "Abort", ["words"], "words"),
        ("click.exceptions", "ClickException", ["words"], "words"),
        ("builtins", "EOFError", ["words"], "words"),
        ("builtins", "BrokenPipeError", [32, "words"], "[Errno 32] words"),
        ("builtins", "StopIteration", ["words"], "words"),
        ("os", "system", ["true"], "true"),
        ("antigravity", "Comic", ["words"], "words"),
        (None, "Odd", ["words"], "words"),
    ],
)
def test_a_failure_never_ends_a_command_well(
    local: Local, client: Client, module: Any, name: str, args: list[Any], printed: str
) -> None:
    store(client, f"failed-{name}", failure(f"failed-{name}", module, name, *args))
    done = local.command("callers.result", f"failed-{name}")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {printed}\n"


@pytest.mark.parametrize("stored", [b"5", b"{}", b"[" * 10_000, b"\xff", {"status": "FAILURE"}])
def test_an_invalid_result_is_one_line(local: Local, client: Client, stored: Any) -> None:
    store(client, "no-result", stored)
    for options in ((), ("--state",)):
        done = local.command("callers.result", "no-result", *options)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("stored", [b"5", b"{}", b"null", b'{"status": "SUCCESS", "result": 7}'])
def test_an_invalid_result_is_an_error_in_its_place_alone(
    server_only: Local, monkeypatch: pytest.MonkeyPatch, stored: bytes
) -> None:
    ids: list[str] = []

    def ids_in_order() -> str:
        ids.append(f"job-{len(ids)}")
        return ids[-1]

    monkeypatch.setattr(batch, "new_id", ids_in_order)
    monkeypatch.setattr(Bundling, "__init__", no_bundles)
    with server_only.client() as client:
        for first in (0, 3):
            for number in (0, 1, 2):
                job_id = f"job-{first + number}"
                good = {"status": "SUCCESS", "result": number, "task_id": job_id}
                store(client, job_id, stored if number == 1 else good)
        values = client.map(ADD, [(1, 2)] * 3, timeout=20)
        values += client.imap(ADD, [(1, 2)] * 3, timeout=20)

    assert [value for value in values if isinstance(value, int)] == [0, 2, 0, 2]
    assert [type(values[place]) for place in (1, 4)] == [Unreadable, Unreadable]


def test_a_late_job_with_an_invalid_started_state_is_an_error(client: Client) -> None:
    store(client, "odd", {"status": "STARTED", "result": 5, "task_id": "odd"})

    with pytest.raises(TimeoutError, match=r"job odd still runs$"):
        client.get(client.app.AsyncResult("odd"), timeout=2)
