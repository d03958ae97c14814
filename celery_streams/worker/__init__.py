"""Celery's worker on the transport: the consumer, the pool and remote control."""
