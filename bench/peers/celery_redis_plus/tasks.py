"""Stock Celery's tasks and settings, on the transport celery-redis-plus."""

import os

import celery_redis_plus  # noqa: F401 - registers its scheme

from bench.peers.celery.tasks import app
from bench.peers.protocol import URL

app.conf["broker_url"] = os.environ[URL].replace("redis://", "valkey://", 1)
