"""What workers and callers share besides Celery and the configuration."""
