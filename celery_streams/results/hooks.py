"""Celery's hooks for callers that wait, passed on to the consumer of results."""

from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

from celery import _state
from celery.backends import redis

from celery_streams.results import consumer

_celery: Any = _state


class WaitingBackend(redis.RedisBackend):
    """Celery's Redis result backend, whose callers wait on one subscription."""

    ResultConsumer = consumer.ResultConsumer

    # Attributes missing from the type stubs.
    app: Any
    result_consumer: consumer.ResultConsumer
    _ensure_not_eager: Callable[[], None]
    _wait_for_pending: Callable[..., Any]

    def _maybe_resolve_from_buffer(self, result: Any) -> None:
        """Resolve a result from a notice received before; raises Celery's Empty without one."""
        if not self.result_consumer.resolve(result):
            raise Empty

    def forget(self, task_id: str) -> None:
        """Remove a job's result, from the buffer of received notices too."""
        self.result_consumer.buffer.take(task_id)
        super().forget(task_id)

    def wait_for_pending(  # type: ignore[override]  # Celery's own differs from its stub
        self,
        result: Any,
        callback: Any = None,
        propagate: bool = True,  # noqa: FBT002 - Celery's
        **options: Any,
    ) -> Any:
        """Wait for a result, unless it was resolved from the buffer."""
        if result._cache is None or options.get("on_message"):  # noqa: SLF001 - as Celery does
            return super().wait_for_pending(result, callback, propagate, **options)
        return result.maybe_throw(callback=callback, propagate=propagate)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Record that a job is sent: its result will be announced to this thread."""
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
        """Yield the id and the result of each member of a group, as it ends."""
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
                    yield member.id, member._cache  # noqa: SLF001 - as Celery does
        # Nested groups come last: Celery waits for their members without a deadline.
        for group in groups:
            yield group.id, group.children
