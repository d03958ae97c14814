"""Celery's worker on the transport: the consumer, the pool, inline tasks and remote control."""
