"""The worker's consumer: a message that can't be read is answered, not only dropped."""

from typing import Any

from celery.states import FAILURE
from celery.worker import consumer

from cluster.errors import Unreadable


class Consumer(consumer.Consumer):
    """Tells the caller of a message that the worker refuses: Celery leaves it waiting."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Log the message and acknowledge it, as Celery does, and fail its job."""
        self._answer(message, exc)
        super().on_decode_error(message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Log the message and reject it, as Celery does, and fail its job."""
        self._answer(message, exc)
        super().on_invalid_task(body, message, exc)

    def _answer(self, message: Any, exc: Exception) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        job_id = headers.get("id")
        if isinstance(job_id, str):
            refusal = Unreadable(f"the worker cannot read the message: {exc}")
            self.app.backend.store_result(job_id, refusal, FAILURE)
