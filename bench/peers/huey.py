"""huey: blocking fetches, and a notification for each result; `map` submits one by one, too."""

import os
from collections.abc import Sequence
from typing import Any

from huey import RedisHuey

from bench.peers import protocol
from bench.peers.protocol import TIMEOUT, URL, Client, Pair

huey = RedisHuey("bench", url=os.environ[URL], blocking=True, notify_result=True)
add, who = huey.task()(protocol.add), huey.task()(protocol.who)


class Peer(Client):
    """huey's client."""

    submit_one = staticmethod(add)
    submit_who = staticmethod(who)

    def value(self, handle: Any) -> Any:
        """Wait, blocking in Redis."""
        return handle.get(blocking=True, timeout=TIMEOUT)

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit by `map`."""
        return add.map(pairs)

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values."""
        return list(handle.get(blocking=True, timeout=TIMEOUT))
