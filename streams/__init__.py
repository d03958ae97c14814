"""Celery over Redis Streams: what any Celery program can use by its settings alone."""
