"""Results that are announced before anybody asks for them."""

from collections import OrderedDict
from threading import Lock
from typing import Any


class Announced:
    """Keeps up to so many bytes of results, until they are asked for; the oldest go first.

    Celery's own buffer keeps something of each job for good.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._metas: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def put(self, job_id: str, meta: Any, size: int) -> None:
        """Keep what is known of a job, which took so many bytes to say."""
        self.take(job_id)
        with self._lock:
            self._metas[job_id] = (meta, size)
            self._size += size
            while self._size > self._most:
                _, (_, freed) = self._metas.popitem(last=False)
                self._size -= freed

    def take(self, job_id: str) -> Any:
        """Return what is known of a job, and keep it no more; None if nothing is."""
        if job_id not in self._metas:
            return None
        with self._lock:
            meta, size = self._metas.pop(job_id, (None, 0))
            self._size -= size
        return meta
