"""Queue lengths for Flower: on its Broker page, in its API and in its metrics.

Flower reads the lists of kombu's own Redis transport, which are empty here; this module asks the
transport instead. With any other broker Flower is left unchanged.
"""

import logging
from asyncio import get_running_loop
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flower.views import BaseHandler
from flower.views.broker import BrokerView
from flower.views.monitor import Metrics
from prometheus_client import Gauge

from celery_streams import Transport

PAGE = Path(__file__).with_name("broker.html").resolve()

logger = logging.getLogger(__name__)


class Broker:
    """Stands in for Flower's own broker (`flower.utils.broker.Broker`), which reads lengths."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return the lengths of queues; `messages` counts those that wait for a worker."""
        return await get_running_loop().run_in_executor(None, self._read, list(names))

    def _read(self, names: list[str]) -> list[dict[str, Any]]:
        with self._app.connection_for_read() as connection, connection.channel() as channel:
            return [
                {"name": name, "messages": lengths.waiting, **lengths._asdict()}
                for name in names
                for lengths in [channel.queues.lengths(name)]
            ]


def install(app: Any) -> None:
    """Make Flower show the lengths of an app's queues, if its transport reports them."""
    if not isinstance(app.connection_for_read().transport, Transport):
        return
    handler: Any = BaseHandler
    original_names = handler.get_active_queue_names
    gauge = Gauge("flower_queue_jobs", "Jobs of a queue, by their state", ["queue", "state"])
    broker_page: Any = BrokerView
    metrics: Any = Metrics
    original_render, original_get = broker_page.render, metrics.get

    def names(view: Any) -> list[str]:
        # Flower itself lists only queues that a worker consumes.
        return sorted({*original_names(view), *app.amqp.queues})

    def render(view: Any, template: str, **values: Any) -> None:
        original_render(view, str(PAGE) if template == "broker.html" else template, **values)

    async def get(view: Any) -> None:
        gauge.clear()  # no lengths instead of old ones if Redis does not answer
        try:
            for queue in await view.get_broker().queues(view.get_active_queue_names()):
                for state in ("waiting", "delayed", "running", "dead"):
                    gauge.labels(queue["name"], state).set(queue[state])
        except Exception as error:  # noqa: BLE001 - the other metrics are still shown
            logger.error("cannot read the queue lengths: %s", error)  # noqa: TRY400
        await original_get(view)

    handler.get_broker = lambda _: Broker(app)
    handler.get_active_queue_names = names
    broker_page.render = render
    metrics.get = get
