"""The result store: Celery's on Redis, with one write a job and waits that always end.

What is stored, where and as what is Celery's, so that any Celery program reads it. Used by
the setting alone: `result_backend = "celery_streams:RedisBackend+redis://…"`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from math import isfinite
from queue import Empty
from typing import Any

import msgspec
from celery import _state
from celery.backends import base, redis
from celery.exceptions import BackendStoreError
from celery.result import result_from_tuple
from celery.states import FAILURE, PENDING, SUCCESS

from celery_streams import address, fastjson, scripts
from celery_streams.compression import decompress
from celery_streams.errors import Unreadable
from celery_streams.fastjson import MARK
from celery_streams.results import failures, validation
from celery_streams.results.consumer import ResultConsumer
from celery_streams.results.states import Transition
from celery_streams.retries import RetryingRedis, is_temporary
from celery_streams.scripts import ALLOW_OOM
from celery_streams.transport.queues import Result

_stock: Any = redis  # its type stubs leave out most of it
_base: Any = base
_celery: Any = _state

#: Seconds that a chord's counters stay after each member where no setting says otherwise: a
#: chord may take far longer than its results are kept.
CHORD_EXPIRES = 30 * 86_400

#: What a compressed result begins with.
COMPRESSED: bytes = _base.COMPRESSED_PAYLOAD_MAGIC
#: Bytes of a result once it is decompressed.
MAX_BYTES = 256 * 1024 * 1024
#: Characters of the reason why a result cannot be read: it may quote all of it.
MAX_REASON = 250
#: Bits of an integer that JSON encoders write without a question.
MAX_BITS = 10_000

#: Celery's count of a chord's members, each once. Told again after the reply was lost, it
#: grants the same claim on the callback again; a chord that is complete soon expires.
COUNT = f"""{ALLOW_OOM}
local function count() {_stock.CHORD_PART_RETURN_LUA} end
local counted = count()
if counted[3] and counted[4] == 0 and redis.call('GET', KEYS[6]) == ARGV[8] then
  counted[4] = 1
end
if counted[4] == 1 and tonumber(ARGV[9]) > 0 then
  for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
end
return counted
"""


class RedisBackend(redis.RedisBackend):
    """Stores a result by one command, and wakes whoever waits for it without one a job."""

    # What the type stubs leave out of Celery's class.
    app: Any
    client: Any
    expires: Any
    failure_expires: Any
    result_consumer: Any
    _chord_expires: Any
    serializer: str
    compression: Any
    connparams: dict[str, Any]
    _ensure_not_eager: Callable[[], None]
    _ensure_retryable: Callable[..., Any]
    _get_result_meta: Callable[..., Any]
    _wait_for_pending: Callable[..., Any]
    get: Callable[..., Any]
    _MAX_STR_VALUE_SIZE: int

    ResultConsumer = ResultConsumer

    _kept_job: str | None = None
    _kept: Result | None = None

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of connections to the server of a URL, read as the broker's is."""
        server = address.read(url, "the result store's URL")
        params: dict[str, Any] = super()._params_from_url(server.url, defaults)  # type: ignore[misc]  # not in the stubs
        if "path" in params:  # a socket knows no keep-alive
            params.pop("socket_keepalive", None)
        if "credential_provider" in params:
            params["credential_provider"] = address.provider(
                server.user, params["credential_provider"]
            )
        return params

    # Storing ---------------------------------------------------------------------------

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,  # noqa: FBT002 - Celery's
        state: str = SUCCESS,
    ) -> None:
        """Store that a job succeeded, and tell its chord."""
        if store_result and task_id == self._kept_job and not request.ignore_result:
            self._kept = self._textresult(task_id, result, request)
            if self._kept:
                return
        super().mark_as_done(task_id, result, request, store_result, state)

    def mark_as_failure(
        self, task_id: str, exc: Exception, traceback: Any = None, *args: Any, **options: Any
    ) -> None:
        """Store the error that a task raised, not the one that Celery can pickle in its place."""
        super().mark_as_failure(task_id, _raised(exc), traceback, *args, **options)

    def prepare_exception(self, exc: Any, serializer: str | None = None) -> Any:
        """Return what is stored of an error: with its text, which Celery leaves out."""
        if (serializer or self.serializer) == "pickle":
            return super().prepare_exception(exc, serializer)
        return failures.describe(exc, lambda arg: self.decode(self.encode(arg)))

    def exception_to_python(self, exc: Any) -> Any:
        """Return the error that was stored, None for none; it is an Exception, whatever it says.

        Raises Unreadable for what is not an error.
        """
        if not exc or isinstance(exc, BaseException):
            exc = super().exception_to_python(exc)
            if exc is None or isinstance(exc, Exception):
                return exc
            exc = failures.describe(exc, lambda _: None)
        return failures.rebuild(exc)

    def _textresult(self, job_id: str, value: Any, request: Any) -> Result | None:
        """Return what is stored of a common job, all that Celery stores; None of any other."""
        if not (self._stores_plainly and _is_exact(value)) or request.children:
            return None
        meta = {
            "status": SUCCESS,
            "result": value,
            "traceback": None,
            "children": [],
            "date_done": datetime.now(self.app.timezone).isoformat(),
        }
        if request.group:
            meta["group_id"] = request.group
        if request.parent_id:
            meta["parent_id"] = request.parent_id
        meta["task_id"] = job_id
        return self._result(job_id, msgspec.json.encode(meta), self.expires, request)

    def _result(self, job_id: str, payload: bytes, expires: int | None, request: Any) -> Result:
        key: Any = self.get_key_for_task(job_id)
        return Result(key, payload, int(expires or 0), self._channel_for(request))

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **options: Any,
    ) -> Any:
        payload = self.payload(task_id, result, state, traceback, request)
        if len(payload) > self._MAX_STR_VALUE_SIZE:
            refused: Any = BackendStoreError
            raise refused("value too large for Redis", state=state, task_id=task_id)
        expires = self.failure_expires if state == FAILURE else self.expires
        if state == SUCCESS and task_id == self._kept_job:
            self._kept = self._result(task_id, payload, expires, request)
            return result
        self.ensure(self.write, (task_id, payload, expires, request, Transition(state)))
        return result

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return True if storing may work later: Redis is away, or refuses to write just now."""
        return is_temporary(exc) or bool(super().exception_safe_to_retry(exc))

    def _get_client(self) -> Any:
        return RetryingRedis

    def payload(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None
    ) -> Any:
        """Return what is stored of a job."""
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = str(task_id)
        return self.encode(meta)

    @cached_property
    def _is_json(self) -> bool:
        return bool(self.serializer == "json")

    @cached_property
    def stores_json(self) -> bool:
        """Tell whether what is stored is JSON, and nothing but that."""
        return self._is_json and not self.compression

    @cached_property
    def _stores_plainly(self) -> bool:
        is_extended = self.app.conf.find_value_for_key("extended", "result")
        return self.stores_json and not is_extended

    def write(
        self,
        task_id: str,
        payload: Any,
        expires: int | None,
        request: Any,
        transition: Transition,
        client: Any = None,
    ) -> bool:
        """Store a payload and announce it; tell whether it was allowed to replace what was there.

        What is there may be of another serializer, or compressed: then its state is found here,
        and Redis told that this very payload may be replaced.
        """
        channel = self._channel_for(request)
        found: Any = ""
        while True:
            arguments = (payload, int(expires or 0), channel, *transition.arguments(found))
            key = self.get_key_for_task(task_id)
            found = scripts.STORE(client or self.client, [key], *arguments)
            if found in {0, 1}:
                return bool(found)
            if not transition.allows(self._state_of(found)):
                return False

    def _channel_for(self, request: Any) -> bytes:
        sender = getattr(request, "reply_to", None)
        return self.channel_of(sender) if sender else b""

    def keep(self, job_id: str) -> None:
        """Keep the success of a job, for who stores it together with others."""
        self._kept_job = job_id

    def kept(self) -> Result | None:
        """Return the result that was kept, if there was one, and keep no more."""
        kept, self._kept_job, self._kept = self._kept, None, None
        return kept

    def _state_of(self, payload: Any) -> str:
        try:
            return str(self.decode(payload)["status"])
        except Exception:  # noqa: BLE001 - nobody can read it
            return PENDING

    # Waiting ---------------------------------------------------------------------------

    def channel_of(self, oid: str) -> bytes:
        """Return the channel where the results of jobs that `oid` sent are announced."""
        return self._reply_prefix + oid.encode()

    @cached_property
    def _reply_prefix(self) -> bytes:
        prefix: Any = self.task_keyprefix
        return bytes(prefix.removesuffix(b"celery-task-meta-")) + b"celery-reply-"

    def job_of(self, notice: Any) -> str | None:
        """Return the id of the job that a notice names by its key, if it does."""
        prefix: Any = self.task_keyprefix
        name = notice.encode() if isinstance(notice, str) else notice
        return (
            name.removeprefix(prefix).decode(errors="replace") if name.startswith(prefix) else None
        )

    def metas(self, notice: Any) -> list[Any]:
        """Return what a notice says of a job, or of several; what is no result is left out."""
        try:
            known, is_plain = self._parsed(notice)
        except Unreadable:  # of what is stored, whoever asks for the job is told
            return []
        metas = []
        for meta in known if isinstance(known, list) else [known]:
            with suppress(Unreadable):
                metas.append(self._checked(meta, None, is_plain=is_plain))
        return metas

    def meta_of(self, job_id: str, payload: Any) -> Any:
        """Return what is stored of a job; raises Unreadable for what is no result of it."""
        known, is_plain = self._parsed(payload)
        return self._checked(known, job_id, is_plain=is_plain)

    def _parsed(self, payload: Any) -> tuple[Any, bool]:
        """Return what a payload says, and whether it is plain JSON."""
        if self._is_json:
            try:
                return fastjson.decode(payload), MARK not in payload
            except Exception:  # noqa: BLE001, S110 - compressed by another program, or no JSON
                pass
        return self.decode(payload), False

    def _checked(self, meta: Any, job_id: str | None, *, is_plain: bool) -> Any:
        validation.check(meta, job_id)
        if is_plain and meta["status"] == SUCCESS:
            return meta
        return self.meta_from_decoded(meta)

    def meta_from_decoded(self, meta: Any) -> Any:
        """Return what is known of a job, its error rebuilt."""
        meta = super().meta_from_decoded(meta)
        validation.check_failure(meta)
        return meta

    def decode(self, payload: Any) -> Any:
        """Return what is stored; raises Unreadable for what is not what it says."""
        try:
            return super().decode(_decompressed(payload))
        except Unreadable:
            raise
        except Exception as error:
            why = " ".join(failures.text_of(error).split())[:MAX_REASON]
            raise Unreadable(f"a result cannot be read: {why}") from error

    def _get_task_meta_for(self, task_id: str) -> Any:
        payload = self.get(self.get_key_for_task(task_id))
        if payload is None:
            return {"status": PENDING, "result": None}
        return self.meta_of(task_id, payload)

    def _restore_group(self, group_id: str) -> Any:
        payload = self.get(self.get_key_for_group(group_id))
        if not payload:
            return None
        meta = self.decode(payload)
        members = meta.get("result") if isinstance(meta, dict) else None
        if members is None or not validation.are_results([members]):
            raise Unreadable(f"what is stored is not the group {group_id}")
        return {**meta, "result": result_from_tuple(members, self.app)}

    def _maybe_resolve_from_buffer(self, result: Any) -> None:
        """Give a result what was announced of its job; Celery's Empty if nothing was."""
        if not self.result_consumer.resolve(result):
            raise Empty

    def forget(self, task_id: str) -> None:
        """Forget a result, too, that was announced and not asked for."""
        self.result_consumer.buffer.take(task_id)
        super().forget(task_id)

    def wait_for_pending(  # type: ignore[override]  # Celery's own differs from its stub
        self,
        result: Any,
        callback: Any = None,
        propagate: bool = True,  # noqa: FBT002 - Celery's
        **options: Any,
    ) -> Any:
        """Wait for a result, unless it has just been found announced."""
        if result._cache is None or options.get("on_message"):  # noqa: SLF001 - as Celery does
            return super().wait_for_pending(result, callback, propagate, **options)
        return result.maybe_throw(callback=callback, propagate=propagate)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Note that a job is sent: its result will be announced to this thread."""
        if not _celery.task_join_will_block():
            self.result_consumer.sent(task_id, self.app.thread_oid)

    def iter_native(  # type: ignore[override]
        self,
        result: Any,
        *,
        timeout: float | None = None,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Iterator[tuple[str, Any]]:
        """Yield the id of each member of a group and what is known of it, as it ends."""
        self._ensure_not_eager()
        members: dict[str, list[Any]] = {}
        for member in result.results:
            members.setdefault(member.id, []).append(member)
        groups = [member for member in result.results if hasattr(member, "results")]
        waiting = self._wait_for_pending(
            result, timeout=timeout, on_interval=on_interval, on_message=on_message
        )
        for ended in waiting:
            while ended:
                for member in members.pop(ended.popleft(), ()):
                    yield member.id, member._cache  # noqa: SLF001 - Celery's way
        # Celery gets the members of a group in a group without a deadline: by now they ended.
        for group in groups:
            yield group.id, group.children

    # Chords ----------------------------------------------------------------------------

    @property
    def chord_expires(self) -> Any:
        """Seconds that the counters of a chord stay after each of its members."""
        if self._chord_expires is not None or not self.expires:
            stock: Any = super()
            return stock.chord_expires
        return max(self.expires, CHORD_EXPIRES)

    @cached_property
    def _chord_part_return_script(self) -> Any:
        script = self.client.register_script(COUNT)

        def count(keys: Any, args: Any, client: Any) -> Any:
            # A connection lost here would else leave the chord one short for ever.
            arguments = [*args, int(self.expires or 0)]
            return self._ensure_retryable(self.ensure, script, (keys, arguments))

        return count

    def get_task_meta(self, task_id: str, **options: Any) -> Any:  # type: ignore[override]
        """Return what is known of a job.

        A worker that asks before it runs a job that came twice is not told of a success that
        may not have been counted: the worker before it may have died just then. Run again, the
        member is counted once, and the chord's callback sent if it was not.
        """
        meta = super().get_task_meta(task_id, **options)
        looks_for_a_copy = _celery.task_join_will_block() and not _celery.get_current_task()
        if looks_for_a_copy and meta["status"] == SUCCESS and meta.get("group_id"):
            size = self.get_key_for_group(meta["group_id"], ".s")
            if self.client.exists(size):
                return {"status": PENDING, "result": None}
        return meta


def _decompressed(payload: Any) -> Any:
    """Return a payload, decompressed within a bound: a few bytes can stand for a gigabyte."""
    if not (isinstance(payload, bytes) and payload.startswith(COMPRESSED)):
        return payload
    method, _, body = payload.removeprefix(COMPRESSED).partition(b"\0")
    text = decompress(body, method.decode(errors="replace"), MAX_BYTES, "of a result")
    if text.startswith(COMPRESSED):
        raise Unreadable("a result cannot be read: it is compressed twice")
    return text


def _raised(error: Exception) -> Exception:
    """Return the error under way where Celery put this one in its place, with its traceback."""
    raised = sys.exc_info()[1]
    is_in_place = (
        isinstance(raised, Exception)
        and raised is not error
        and error.__traceback__ is not None
        and error.__traceback__ is raised.__traceback__
    )
    return raised if is_in_place else error  # type: ignore[return-value]  # an Exception


def _is_exact(value: Any) -> bool:
    """Tell of a value whether any JSON encoder writes it alike."""
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() < MAX_BITS)
    if kind is float:
        return isfinite(value)
    return kind in _EXACT or (kind is str and value.isascii())


_EXACT = (bool, type(None))
