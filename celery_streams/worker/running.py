"""The jobs that the pool's processes run, as Celery's requests, for the worker's main process.

It needs a request only if somebody asks, or if the job's process has died: then the message is
read from its stream.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic, time
from typing import Any

from billiard.common import human_status
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.utils.imports import symbol_by_name
from celery.worker import state, strategy

from celery_streams.errors import Malformed
from celery_streams.transport import keys
from celery_streams.transport.channel import Channel
from celery_streams.transport.queues import Entry
from celery_streams.transport.validation import check
from celery_streams.worker.scoreboard import Running

logger = logging.getLogger(__name__)

_celery: Any = strategy


class RunningJobs:
    """The requests of the jobs that run, by the tags of their messages."""

    def __init__(self, consumer: Any, channel: Channel) -> None:
        self._consumer = consumer
        self._channel = channel
        self._requests: dict[str, Any] = {}
        self._waiting: dict[str, Any] = {}

    def refresh(self, running: Iterable[tuple[int, Running]]) -> None:
        """Have Celery's state hold these jobs, each with its process' id, and no others."""
        jobs = {job.tag: (pid, job) for pid, job in running}
        for tag in self._requests.keys() - jobs.keys():
            self._forget(tag)
        for tag, (pid, job) in jobs.items():
            if tag not in self._requests:
                with suppress(Exception):  # it will end its process
                    self._request(pid, job)

    def lost(self, pid: int, job: Running, exitcode: int, *, is_timeout: bool) -> None:
        """Fail or requeue the job of a process that has ended."""
        try:
            request = self._request(pid, job)
        except Exception as error:  # noqa: BLE001 - it may be why the process has ended
            self._requeue(job.tag, error)
            return
        if request is None or request.acknowledged:  # it has ended, or was revoked
            return
        if request._already_cancelled:  # noqa: SLF001 - Celery's: the worker stops at once
            self._consumer.release([job.tag])
        elif is_timeout:
            request.on_timeout(soft=False, timeout=job.hard)
        else:
            try:
                raise WorkerLostError(f"Worker exited prematurely: {human_status(exitcode)}.")
            except WorkerLostError:
                request.on_failure(ExceptionInfo())
        self._forget(job.tag)

    def _requeue(self, tag: str, error: Exception) -> None:
        logger.error("cannot read the job of a process that ended: %r", error)
        if entry := keys.is_tag(tag) and self._channel.queues.read(tag):
            self._channel.deliveries.requeue_entry(entry)

    def held(self, tag: str) -> Any:
        """Return the request of a job that waits; None if its message cannot be read."""
        request = self._read(tag)
        if request:
            self._waiting[tag] = request
            state.task_reserved(request)
        return request

    def forget(self, tag: str) -> None:
        """Forget a job that waits no more."""
        request = self._waiting.pop(tag, None)
        if request:
            state.requests.pop(request.id, None)
            state.reserved_requests.discard(request)
            self._channel.deliveries.forget(tag)

    def _request(self, pid: int, job: Running) -> Any:
        """Return a running job's request; None if its message is acked, or can't be read."""
        known = self._requests.get(job.tag)
        request = known or self._read(job.tag, self._consumer.pool.kept(pid))
        if request and not known:
            request.worker_pid = pid
            request.time_start = time() - (monotonic() - job.started)
            self._requests[job.tag] = request
            state.task_reserved(request)
            state.active_requests.add(request)
        return request

    def _read(self, tag: str, kept: bytes = b"") -> Any:
        entry = self._channel.queues.read(tag) if keys.is_tag(tag) else None
        if entry is None and not kept:
            return None
        entry = entry or Entry(tag, kept, None)
        try:
            envelope = check(entry.message, self._channel.max_message_bytes)
        except Malformed:
            return None
        envelope["properties"]["delivery_tag"] = tag
        if entry.deliveries:
            envelope["headers"]["x-delivery-count"] = entry.deliveries
        message: Any = self._channel.Message(envelope, self._channel)
        message.accept = self._consumer.task_consumer.accept
        request = self._made(message)
        if request:
            self._channel.deliveries.add(tag, message)
        return request

    def _made(self, message: Any) -> Any:
        consumer = self._consumer
        body, headers, decoded, utc = message.body, message.headers, False, True
        payload = message.payload
        if "args" in payload:
            body, headers, decoded, utc = _celery.hybrid_to_proto2(message, payload)
        elif "task" not in headers:
            body, headers, decoded, utc = _celery.proto1_to_proto2(message, payload)
        task = consumer.app.tasks.get(headers.get("task"))
        if task is None:
            return None
        return symbol_by_name(task.Request)(
            message,
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
            app=consumer.app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=task,
            connection_errors=consumer.connection_errors,
            body=body,
            headers=headers,
            decoded=decoded,
            utc=utc,
        )

    def _forget(self, tag: str) -> None:
        request = self._requests.pop(tag)
        state.requests.pop(request.id, None)
        state.reserved_requests.discard(request)
        state.active_requests.discard(request)
        self._channel.deliveries.forget(tag)
