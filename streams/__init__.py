"""Celery over Redis Streams: a kombu transport, a result backend and dead letters.

By settings alone, for any Celery program: docs/streams.md. Nothing that was accepted is lost,
whatever is killed: docs/reliability.md.
"""
