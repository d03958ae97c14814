"""celery-redis-plus: stock Celery's tasks, settings and client on this transport."""

import os

import celery_redis_plus  # noqa: F401 - registers its scheme

from bench.peers.celery import Peer, app
from bench.peers.protocol import URL

__all__ = ["Peer", "app"]

app.conf["broker_url"] = os.environ[URL].replace("redis://", "valkey://", 1)
