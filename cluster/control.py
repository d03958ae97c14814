"""Remote control from a caller: what it revokes stays revoked, whether workers listen or not."""

from typing import Any

from celery.app import control
from kombu.utils.functional import maybe_list

from celery_streams.transport import revocation
from celery_streams.transport.channel import Channel
from celery_streams.transport.validation import is_name


class Control(control.Control):
    """Celery's, which keeps the ids of revoked jobs in Redis before it tells the workers."""

    app: Any

    def revoke(
        self,
        task_id: Any,
        destination: Any = None,
        terminate: Any = None,
        signal: Any = "SIGTERM",
        **options: Any,
    ) -> Any:
        """Revoke a job, or a list of jobs, by their ids.

        Raises ValueError for what are no ids, or too many, and kombu's and redis-py's errors.
        """
        ids = [str(each) for each in maybe_list(task_id) or []]
        if not all(each and is_name(each) for each in ids):
            raise ValueError("what is revoked must be ids of jobs")
        if len(ids) > revocation.MAX_KEPT:
            raise ValueError(
                f"{len(ids)} jobs are more than the {revocation.MAX_KEPT} kept revoked"
            )
        if not destination:
            self._record(ids)
        answers = []
        for start in range(0, len(ids), revocation.MAX_IDS):
            some = ids[start : start + revocation.MAX_IDS]
            answers += super().revoke(some, destination, terminate, signal, **options) or []
        return answers or None

    def purge(self, connection: Any = None) -> int:
        """Remove all waiting jobs, tell their callers, and return how many there were."""
        with self.app.connection_or_acquire(connection) as acquired:
            channel = acquired.default_channel
            if isinstance(channel, Channel):
                channel.app = self.app
            return int(self.app.amqp.TaskConsumer(channel).purge())

    discard_all = purge

    def _record(self, ids: list[str]) -> None:
        with self.app.connection_or_acquire() as connection:
            channel = connection.default_channel
            if isinstance(channel, Channel):
                revocation.store(self.app.backend, channel.record_revoked(ids))
