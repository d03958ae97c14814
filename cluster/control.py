"""Remote control for callers: a revoked job stays revoked even if no worker is listening."""

from typing import Any

from celery.app import control
from kombu.utils.functional import maybe_list

from celery_streams.transport import revocation
from celery_streams.transport.channel import Channel
from celery_streams.transport.validation import is_name


class Control(control.Control):
    """Celery's Control, which also stores the ids of revoked jobs in Redis."""

    app: Any

    def revoke(
        self,
        task_id: Any,
        destination: Any = None,
        terminate: Any = None,
        signal: Any = "SIGTERM",
        **options: Any,
    ) -> Any:
        """Revoke a job, or a list of jobs, by id: in Redis first, then in every worker.

        Raise ValueError for an invalid id or too many ids, and kombu's and redis-py's errors.
        """
        ids = [str(each) for each in maybe_list(task_id) or []]
        if not all(each and is_name(each) for each in ids):
            raise ValueError("only job ids can be revoked")
        if len(ids) > revocation.MAX_KEPT:
            raise ValueError(
                f"cannot revoke {len(ids)} jobs: at most {revocation.MAX_KEPT} ids are kept"
            )
        if not destination:
            self._record(ids)
        answers = []
        for start in range(0, len(ids), revocation.MAX_IDS):
            batch = ids[start : start + revocation.MAX_IDS]
            answers += super().revoke(batch, destination, terminate, signal, **options) or []
        return answers or None

    def purge(self, connection: Any = None) -> int:
        """Remove all waiting jobs, store an error for each, and return their number."""
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
