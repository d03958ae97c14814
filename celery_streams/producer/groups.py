"""Groups, and the headers of chords, sent in one write."""

from functools import wraps
from typing import Any

from celery import canvas

from celery_streams.producer.submission import Submission


def install() -> None:
    """Have the groups of apps with a `Submission` sent in one round trip; others stay Celery's.

    Kombu sends a batch without retries. A worker, which retries for as long as a restart of the
    broker takes, sends a group's jobs one by one.
    """
    stock = canvas.group.apply_async

    @wraps(stock)
    def apply_async(self: canvas.group, *args: Any, **options: Any) -> Any:
        app: Any = self.app
        submission = getattr(app, "submission", None)
        if not isinstance(submission, Submission) or options.get("producer"):
            return stock(self, *args, **options)
        if app.current_worker_task:
            return stock(self, *args, **options)
        with app.producer_or_acquire() as producer, producer.batch(), submission.together(producer):
            return stock(self, *args, **{**options, "producer": producer})

    canvas.group.apply_async = apply_async  # type: ignore[method-assign]
