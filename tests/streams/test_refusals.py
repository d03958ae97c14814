"""A server that refuses commands for a while: no result is lost, and no job fails."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from celery_streams.retries import is_state_of_server, is_temporary
from tests.support.pairs import signature
from tests.support.waiting import eventually

Refusal = Callable[[Any], Any]


@contextmanager
def no_replicas(store: Any) -> Iterator[None]:
    store.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        store.config_set("min-replicas-to-write", 0)


@contextmanager
def read_only(store: Any) -> Iterator[None]:
    store.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        store.replicaof("NO", "ONE")


@contextmanager
def master_down(store: Any) -> Iterator[None]:
    store.config_set("replica-serve-stale-data", "no")
    try:
        with read_only(store):
            yield
    finally:
        store.config_set("replica-serve-stale-data", "yes")


@contextmanager
def no_permission(store: Any) -> Iterator[None]:
    store.execute_command("ACL", "SETUSER", "default", "-@write", "-@scripting")
    try:
        yield
    finally:
        store.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def busy(store: Any) -> Iterator[None]:
    before = store.config_get("busy-reply-threshold")["busy-reply-threshold"]
    store.config_set("busy-reply-threshold", 10)

    def run() -> None:
        with suppress(ResponseError, RedisTimeout):
            store.eval("while true do end", 0)

    script = threading.Thread(target=run)
    script.start()
    eventually("the server is busy", lambda: _refuses(store.ping))
    try:
        yield
    finally:
        store.script_kill()
        script.join()
        store.config_set("busy-reply-threshold", before)


def _refuses(command: Callable[[], Any]) -> bool:
    try:
        command()
    except ResponseError:
        return True
    return False


REFUSALS = [no_replicas, read_only, master_down, no_permission, busy]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("transaction", [True, False])
def test_a_refusal_in_a_pipeline_is_temporary(store: Any, refusal: Any, transaction: bool) -> None:
    pipeline = store.pipeline(transaction=transaction)
    pipeline.set("refused", 1)
    with refusal(store), pytest.raises(RedisError) as caught:
        pipeline.execute()

    assert is_temporary(caught.value)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_what_ends_while_the_server_refuses_reaches_its_caller_once(
    start: Callable[..., Any], store: Any, tmp_path: Path, kind: str, refusal: Refusal
) -> None:
    folder = tmp_path / "gate"
    folder.mkdir()

    def job(value: Any, *error: str) -> Any:
        return signature(twins, kind, "gated", str(folder), value, *error)

    with start("-c", "6") as (twins, _):
        jobs = [
            job(1).apply_async(),
            job(2).apply_async(),
            job(3, "its own").apply_async(),
            chain(job(4), signature(twins, kind, "echo")).apply_async(),
            chord(group([job(5), job(6)]), signature(twins, kind, "echo")).apply_async(),
        ]
        eventually("all run", lambda: len([*folder.iterdir()]) == 6)
        log = tmp_path / f"{kind}.log"
        with refusal(store):
            before = log.read_text().count("refuses, trying again")
            (folder / "open").touch()
            eventually(
                "it is refused",
                lambda: log.read_text().count("refuses, trying again") > before,
            )
        values = [each.get(timeout=60, propagate=False) for each in jobs]
        # A lost reply would be noticed after 46 s.
        assert signature(twins, kind, "echo", 9).apply_async().get(timeout=30) == 9

    assert values[:2] == [1, 2]
    assert repr(values[2]) == "ValueError('its own')"
    assert (values[3], sorted(values[4])) == (4, [5, 6])
    assert len([each for each in folder.iterdir() if each.name != "open"]) == 6
    assert not store.keys("*:dead")


# A busy server keeps a waiting fetch, and refuses none.
@pytest.mark.parametrize("refusal", [each for each in REFUSALS if each is not busy])
def test_a_worker_continues_after_a_refusal(
    start: Callable[..., Any], store: Any, tmp_path: Path, refusal: Refusal
) -> None:
    with start() as (twins, _):
        assert signature(twins, "ours", "echo", 1).apply_async().get(timeout=30) == 1
        log = tmp_path / "ours.log"
        before = log.read_text()
        with refusal(store):
            eventually("a fetch is refused", lambda: log.read_text() != before)
        job = signature(twins, "ours", "echo", 2).apply_async()
        assert job.get(timeout=30) == 2


@pytest.mark.parametrize(
    ("error", "passes", "is_state"),
    [
        (ReadOnlyError("You can't write"), True, True),
        (BusyLoadingError("Redis is loading"), True, True),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), True, True),
        (ResponseError("BUSY Redis is busy running a script."), True, True),
        (ResponseError("MISCONF Redis is configured to save"), True, True),
        (ResponseError("OOM command not allowed. script: x, on @user_script:1."), True, True),
        (ResponseError("UNKILLABLE Sorry the script already executed write commands"), True, True),
        (NoPermissionError("User x has no permissions"), True, False),
        (AuthenticationError("invalid username-password pair"), True, False),
        (ResponseError("NOAUTH Authentication required."), True, False),
        (ResponseError("WRONGTYPE Operation against a key"), False, False),
        (ResponseError("ERR syntax error"), False, False),
        (ValueError("BUSY"), False, False),
    ],
)
def test_a_refusal_differs_from_an_error(error: Exception, *, passes: bool, is_state: bool) -> None:
    assert (is_temporary(error), is_state_of_server(error)) == (passes, is_state)


def test_a_caller_gets_a_refusal_at_once_even_with_celerys_worker_loaded() -> None:
    from celery.worker import state

    from celery_streams.retries import retry_while_refused

    def refuse() -> None:
        calls.append(1)
        raise ResponseError("READONLY You can't write against a read only replica.")

    calls: list[int] = []
    with pytest.raises(ResponseError):
        retry_while_refused(refuse)
    assert len(calls) == 1
    assert state.__name__ in sys.modules
