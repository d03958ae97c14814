"""What stands in for Celery's pool, steps and timer in a process of the pool."""

from functools import partial
from time import sleep, time
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import Reject
from celery.worker import consumer

from celery_streams.worker.scoreboard import Slot

_celery: Any = consumer


class InProcessPool(BasePool):
    """Runs in this process the jobs that need Celery's own request.

    `soft_timeout` and `timeout` are the limits of jobs without others, in seconds.
    """

    def __init__(self, slot: Slot, **options: Any) -> None:
        super().__init__(**options)
        self._slot = slot

    def on_apply(
        self,
        target: Any,
        args: Any = (),
        kwargs: Any = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        **callbacks: Any,
    ) -> None:
        """Run a job; what would end a process of prefork ends this one."""
        soft, hard = self.options["soft_timeout"], self.options["timeout"]
        limits = soft_timeout or soft or 0, timeout or hard or 0
        accepted = callbacks.get("accept_callback")
        run = partial(self._run, limits, target)
        try:
            apply_target(
                run, args, kwargs, callbacks["callback"], accepted, propagate=BaseException
            )
        except Reject:  # of a task's hook: the tracer passes it on
            callbacks["error_callback"](ExceptionInfo())

    def _run(self, limits: tuple[float, float], target: Any, *args: Any) -> Any:
        self._slot.set_limits(*limits)
        try:
            return target(*args)
        finally:
            self._slot.set_limits(0, 0)
            self._slot.check()


class Blueprint(_celery.Consumer.Blueprint):  # type: ignore[misc]  # not in the stubs
    """The steps of a consumer that a process needs; the main process takes all others."""

    name = "Process"
    default_steps = (
        "celery.worker.consumer.connection:Connection",
        "celery.worker.consumer.events:Events",
        "celery.worker.consumer.tasks:Tasks",
        "celery.worker.consumer.consumer:Evloop",
    )


class Timer:
    """Celery's timer, for a process that has nothing else to do until then."""

    queue = ()

    def call_at(self, eta: float, function: Any, args: Any = (), **_: Any) -> None:
        """Wait, and call `function`; no message is fetched long before it is due."""
        sleep(max(eta - time(), 0))
        function(*args)
