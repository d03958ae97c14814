"""The client of celery-redis-plus: that of stock Celery."""

from bench.peers.celery.client import StockCelery
from bench.peers.celery_redis_plus import tasks  # noqa: F401 - sets the broker
from bench.peers.protocol import serve

if __name__ == "__main__":
    serve(StockCelery())
