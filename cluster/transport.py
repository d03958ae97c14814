"""Kombu's Redis transport, with a defect mended that ends workers when Redis restarts."""

from kombu.transport import redis


class Channel(redis.Channel):
    """A channel that closes whole when its connection is gone."""

    #: Set by kombu once the channel is open.
    connection_errors: tuple[type[BaseException], ...]

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
