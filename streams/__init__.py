"""Celery over Redis Streams: a kombu transport, a result backend and dead letters.

Nothing that a transport accepted is lost, whatever is killed: docs/reliability.md.
"""
