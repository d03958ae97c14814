"""The jobs that the pool's processes run, as Celery's requests, for the worker's main process.

It needs a request only if somebody asks, or if the job's process has died: then the message is
read from its stream.
"""

import logging
from contextlib import suppress
from time import monotonic, time
from typing import Any

from billiard.common import human_status
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.worker import state
from redis.exceptions import ResponseError

from celery_streams import bundles
from celery_streams.errors import Malformed
from celery_streams.transport import keys
from celery_streams.transport.channel import Channel
from celery_streams.transport.entries import Entry
from celery_streams.transport.validation import check
from celery_streams.worker.child import Child
from celery_streams.worker.rate_limits import PAUSE
from celery_streams.worker.request import request_of
from celery_streams.worker.scoreboard import Running

logger = logging.getLogger(__name__)


class RunningJobs:
    """The requests of the jobs that run, by the tags of their messages."""

    def __init__(self, consumer: Any, channel: Channel) -> None:
        self._consumer = consumer
        self._pool = consumer.pool
        self.channel = channel
        self._requests: dict[str, Any] = {}

    def refresh(self) -> None:
        """Have Celery's state hold the jobs that run, and how many have run of each task."""
        totals = self._pool.totals()
        state.total_count.clear()
        state.total_count.update(totals)
        state.all_total_count[0] = totals.total()
        jobs = {job.tag: (pid, job) for pid, job in self._pool.running()}
        for tag in self._requests.keys() - jobs.keys():
            self._forget(tag)
        for tag, (pid, job) in jobs.items():
            if tag not in self._requests:
                with suppress(Exception):  # it will end its process
                    self._request(pid, job)

    def release(self, tags: list[str]) -> None:
        """Release messages that a process has not begun with; raises OSError."""
        self._check_connection()
        self.channel.deliveries.release(tags)

    def requeue(self, tags: list[str]) -> None:
        """Requeue the messages of jobs that had ended when their process did; raises OSError.

        One of them may be why.
        """
        self._check_connection()
        for tag in tags:
            if entry := keys.is_tag(tag) and self.channel.queues.read(tag):
                try:
                    self.channel.deliveries.requeue_entry(entry)
                except Malformed:
                    self.channel.deliveries.release([tag])

    def _check_connection(self) -> None:
        if self.channel.closed:
            raise ConnectionError("the worker is not connected")

    def lost(self, child: Child, job: Running) -> None:
        """Fail or requeue the job of a process that has ended; raises OSError."""
        self._check_connection()
        try:
            request = self._request(child.pid, job)
        except Exception as error:  # noqa: BLE001 - it may be why the process has ended
            self._requeue(job.tag, error)
            return
        if request is None or request.acknowledged:  # it has ended, or was revoked
            return
        if request._already_cancelled:  # noqa: SLF001 - Celery's: the worker stops at once
            self.release([job.tag])
        else:
            logger.error("%s[%s] ran in the process %d", request.name, request.id, child.pid)
            self._fail(request, child, job)
        self._forget(job.tag)

    def _fail(self, request: Any, child: Child, job: Running) -> None:
        """Fail or requeue a job; one whose hooks raise an error is requeued."""
        try:
            self._end(request, child, job)
        except Exception as error:  # noqa: BLE001 - of a task's own hook, or of the result store
            self._requeue(job.tag, error)

    @staticmethod
    def _end(request: Any, child: Child, job: Running) -> None:
        exceeded = child.exceeded(job)
        if exceeded and request.task.name != bundles.NAME:  # of which one call is at fault
            request.on_timeout(soft=False, timeout=_as_set(exceeded))
        else:
            try:
                text = f"Worker exited prematurely: {human_status(child.exitcode)}."
                raise WorkerLostError(text)  # noqa: TRY301 - for its traceback
            except WorkerLostError:
                request.on_failure(ExceptionInfo())

    def warn(self, pid: int, job: Running) -> None:
        """Log, as Celery does, that a job has exceeded its soft limit."""
        with suppress(Exception):
            if request := self._request(pid, job):
                request.on_timeout(soft=True, timeout=_as_set(job.soft))

    def forget_ended(self) -> None:
        """Have Celery's state hold no jobs that have ended."""
        if self._requests:
            running = {job.tag for _, job in self._pool.running()}
            for tag in self._requests.keys() - running:
                self._forget(tag)

    def forget_all(self) -> None:
        """Have Celery's state hold no jobs of a lost connection."""
        for tag in [*self._requests]:
            self._forget(tag)

    def _requeue(self, tag: str, error: Exception) -> None:
        logger.error("the job of a process that ended cannot be ended, and is requeued: %r", error)
        if entry := keys.is_tag(tag) and self.channel.queues.read(tag):
            self.channel.deliveries.requeue_entry(entry)

    # Rate limits -------------------------------------------------------------------------

    def hold(self, tag: str) -> None:
        """Hold a job until its task's rate limit permits it to run."""
        try:
            request = self._read(tag)
        except ResponseError as error:
            logger.warning("a rate-limited job waits: the server says %s", error)
            self._consumer.timer.call_after(PAUSE, self.hold, (tag,))
            return
        if request is None:  # its message is gone, or cannot be read
            self._pool.parked.tags.discard(tag)
            return
        state.task_reserved(request)
        if bucket := self._consumer.task_buckets[request.task.name]:
            self._consumer.rate_limits.add(request, bucket, 1)
        else:
            self.permit(request)

    def permit(self, request: Any) -> None:
        """Have a process run a job that was held."""
        tag = request.message.delivery_tag
        self.channel.queues.release([tag], is_permitted=True)
        self._drop(request)
        self._pool.parked.tags.discard(tag)

    # Requests ----------------------------------------------------------------------------

    def _request(self, pid: int, job: Running) -> Any:
        """Return a running job's request; None if its message is acked, or can't be read."""
        known = self._requests.get(job.tag)
        request = known or self._read(job.tag, self._pool.kept(pid))
        if request and not known:
            request.worker_pid = pid
            request.time_start = time() - (monotonic() - job.started)
            self._requests[job.tag] = request
            state.task_reserved(request)
            state.active_requests.add(request)
        return request

    def _read(self, tag: str, kept: bytes = b"") -> Any:
        entry = self.channel.queues.read(tag) if keys.is_tag(tag) else None
        if entry is None and not kept:
            return None
        entry = entry or Entry(tag, kept)
        try:
            envelope = check(entry.message, self.channel.max_message_bytes)
        except Malformed:
            return None
        envelope["properties"]["delivery_tag"] = tag
        if entry.deliveries:
            envelope["headers"]["x-delivery-count"] = entry.deliveries
        message: Any = self.channel.Message(envelope, self.channel)
        message.accept = self._consumer.task_consumer.accept
        request = request_of(self._consumer, message)
        if request:
            self.channel.deliveries.add(tag, message)
        return request

    def _forget(self, tag: str) -> None:
        if request := self._requests.pop(tag, None):
            self._drop(request)

    def _drop(self, request: Any) -> None:
        state.requests.pop(request.id, None)
        state.reserved_requests.discard(request)
        state.active_requests.discard(request)
        self.channel.deliveries.forget(request.message.delivery_tag)


def _as_set(seconds: float) -> float:
    """Return a time limit as it was set: whole numbers are usual."""
    return int(seconds) if seconds.is_integer() else seconds
