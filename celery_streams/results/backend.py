"""Celery's Redis result backend, with one write per job and waits that always end.

Keys and payloads are Celery's, so any Celery program can read them. Selected by a setting:
`result_backend = "celery_streams:RedisBackend+redis://…"`.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec
from celery import _state
from celery.backends import base, redis
from celery.exceptions import BackendStoreError
from celery.result import result_from_tuple
from celery.states import FAILURE, PENDING, SUCCESS

from celery_streams import address, fastjson, scripts
from celery_streams.errors import Unreadable
from celery_streams.fastjson import MARK
from celery_streams.results import failures, validation
from celery_streams.results.chords import ChordBackend
from celery_streams.results.payloads import decompressed, is_portable, raised
from celery_streams.results.states import Transition
from celery_streams.retries import RetryingRedis, is_temporary
from celery_streams.transport.entries import Result

_stock: Any = redis  # its type stubs leave out most of it
_base: Any = base
_celery: Any = _state


#: Length limit of the reason why a result is unreadable, in characters: it may quote the result.
MAX_REASON = 250


class RedisBackend(ChordBackend):
    """Stores and announces each result with one command; callers wait on one subscription."""

    # Attributes missing from the type stubs.
    failure_expires: Any
    serializer: str
    compression: Any
    connparams: dict[str, Any]
    _get_pool: Callable[..., Any]
    _get_result_meta: Callable[..., Any]
    get: Callable[..., Any]
    _MAX_STR_VALUE_SIZE: int

    #: The job whose success is captured instead of written, and its result.
    _captured_job: str | None = None
    _captured: Result | None = None

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """Return the connection parameters of a URL, which is parsed like the broker's."""
        server = address.read(url, "the result store's URL")
        params: dict[str, Any] = super()._params_from_url(server.url, defaults)  # type: ignore[misc]  # not in the stubs
        if "path" in params:  # Unix sockets have no keep-alive
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
        """Store a job's success and count it in its chord."""
        if store_result and task_id == self._captured_job and not request.ignore_result:
            self._captured = self._plain_result(task_id, result, request)
            if self._captured:
                return
        super().mark_as_done(task_id, result, request, store_result, state)

    def mark_as_failure(
        self, task_id: str, exc: Exception, traceback: Any = None, *args: Any, **options: Any
    ) -> None:
        """Store the error that a task raised, rather than Celery's picklable substitute."""
        super().mark_as_failure(task_id, raised(exc), traceback, *args, **options)

    def prepare_exception(self, exc: Any, serializer: str | None = None) -> Any:
        """Return the form of an error to store; unlike Celery's, it includes the error's text."""
        if (serializer or self.serializer) == "pickle":
            return super().prepare_exception(exc, serializer)
        return failures.describe(exc, lambda arg: self.decode(self.encode(arg)))

    def exception_to_python(self, exc: Any) -> Any:
        """Return a stored error, always as an Exception; None if there is none.

        Raises Unreadable if `exc` is not an error.
        """
        if not exc or isinstance(exc, BaseException):
            exc = super().exception_to_python(exc)
            if exc is None or isinstance(exc, Exception):
                return exc
            exc = failures.describe(exc, lambda _: None)
        return failures.rebuild(exc)

    def _plain_result(self, job_id: str, value: Any, request: Any) -> Result | None:
        """Return the result of a simple job, with all of Celery's fields; None for any other."""
        if not (self._stores_plainly and is_portable(value)) or request.children:
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
            store_error: Any = BackendStoreError  # the stubs lack its arguments
            raise store_error("value too large for Redis", state=state, task_id=task_id)
        expires = self.failure_expires if state == FAILURE else self.expires
        if state == SUCCESS and task_id == self._captured_job:
            self._captured = self._result(task_id, payload, expires, request)
            return result
        self.ensure(self.write, (task_id, payload, expires, request, Transition(state)))
        return result

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return True if storing may succeed later: Redis is unreachable or refuses writes."""
        return is_temporary(exc) or bool(super().exception_safe_to_retry(exc))

    def _get_client(self) -> Any:
        return RetryingRedis

    def payload(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None
    ) -> Any:
        """Return the payload to store for a job."""
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
        """True if results are stored as uncompressed JSON."""
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
        """Store a payload and announce it; return False if the transition is not allowed.

        If the script cannot read the present payload, which is compressed or of another
        serializer, its state is checked here and the script allowed to replace that very payload.
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

    def capture(self, job_id: str) -> None:
        """Capture the success of a job instead of writing it."""
        self._captured_job = job_id

    def captured(self) -> Result | None:
        """Return the captured result, if any, and stop capturing."""
        result, self._captured_job, self._captured = self._captured, None, None
        return result

    def _state_of(self, payload: Any) -> str:
        try:
            return str(self.decode(payload)["status"])
        except Exception:  # noqa: BLE001 - an unreadable payload may be replaced
            return PENDING

    # Waiting ---------------------------------------------------------------------------

    def channel_of(self, oid: str) -> bytes:
        """Return the channel on which the results of jobs sent by `oid` are announced."""
        return self._reply_prefix + oid.encode()

    @cached_property
    def _reply_prefix(self) -> bytes:
        prefix: Any = self.task_keyprefix
        return bytes(prefix.removesuffix(b"celery-task-meta-")) + b"celery-reply-"

    def job_of(self, notice: Any) -> str | None:
        """Return the job's id if a notice contains only the key of its result."""
        prefix: Any = self.task_keyprefix
        name = notice.encode() if isinstance(notice, str) else notice
        return (
            name.removeprefix(prefix).decode(errors="replace") if name.startswith(prefix) else None
        )

    def metas(self, notice: Any) -> list[Any]:
        """Return the results in a notice, which has one or several; malformed ones are left out."""
        try:
            decoded, is_plain = self._parsed(notice)
        except Unreadable:  # raised to the caller that reads the key
            return []
        metas = []
        for meta in decoded if isinstance(decoded, list) else [decoded]:
            with suppress(Unreadable):
                metas.append(self._checked(meta, None, is_plain=is_plain))
        return metas

    def meta_of(self, job_id: str, payload: Any) -> Any:
        """Return the result of a job from its payload; raises Unreadable if it is malformed."""
        decoded, is_plain = self._parsed(payload)
        return self._checked(decoded, job_id, is_plain=is_plain)

    def _parsed(self, payload: Any) -> tuple[Any, bool]:
        """Return a payload's value, and whether it is plain JSON."""
        if self._is_json:
            try:
                return fastjson.decode(payload), MARK not in payload
            except Exception:  # noqa: BLE001, S110 - compressed, or of another serializer
                pass
        return self.decode(payload), False

    def _checked(self, meta: Any, job_id: str | None, *, is_plain: bool) -> Any:
        validation.check(meta, job_id)
        if is_plain and meta["status"] == SUCCESS:
            return meta
        return self.meta_from_decoded(meta)

    def meta_from_decoded(self, meta: Any) -> Any:
        """Return a job's result with its error rebuilt."""
        meta = super().meta_from_decoded(meta)
        validation.check_failure(meta)
        return meta

    def decode(self, payload: Any) -> Any:
        """Return the value of a stored payload; raises Unreadable if it is malformed."""
        try:
            return super().decode(decompressed(payload))
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
            raise Unreadable(f"the stored value is not the group {group_id}")
        return {**meta, "result": result_from_tuple(members, self.app)}
