"""Kombu's Redis transport, with a defect mended that ends workers when Redis restarts."""

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """A channel that closes whole when its connection is gone."""

    #: Set by kombu once the channel is open.
    connection_errors: tuple[type[BaseException], ...]
    _commands: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT002 - kombu's
        """Return a client of the channel's pool, for commands the same one every time.

        Kombu makes one a command: a tenth of what a job costs a worker's main process.
        """
        if asynchronous:  # kombu's word for blocking fetches, each on a client of its own
            return super()._create_client(asynchronous)  # type: ignore[misc]  # not in the stubs
        if self._commands is None or self._commands.connection_pool is not self.pool:
            self._commands = super()._create_client()  # type: ignore[misc]  # not in the stubs
        return self._commands

    def close(self) -> None:
        """Close, and hand back what was fetched and not acknowledged, if Redis answers.

        Kombu reads the reply of the fetch under way first. Where that fails it leaves the
        channel open; closed again later, by when the transport has forgotten its address,
        the channel raises AttributeError, and Celery ends the worker.
        """
        try:
            super().close()
        except self.connection_errors:
            super().close()  # the fetch is given up by now


class Transport(redis.Transport):
    """The transport of the cluster's workers and callers."""

    Channel = Channel
