"""Results that are announced before anybody asks for them."""

from collections import OrderedDict
from threading import Lock
from typing import Any

from celery_streams import fastjson

#: Bytes that an entry takes besides its result.
OVERHEAD = 300


class ResultBuffer:
    """Keeps up to so many bytes of results, until they are asked for; the oldest go first.

    As JSON, of which the bytes are known: as Python's objects they take up to twenty times as many.
    Celery's own buffer keeps something of each job for good.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._texts: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def put(self, job_id: str, meta: Any) -> None:
        """Keep what is known of a job, if it is plain."""
        text = fastjson.encode(meta)
        if text is None:
            return
        with self._lock:
            self._pop(job_id)
            self._texts[job_id] = text
            self._size += OVERHEAD + len(text)
            while self._size > self._most:
                self._pop(next(iter(self._texts)))

    def take(self, job_id: str) -> Any:
        """Return what is known of a job, and keep it no more; None if nothing is."""
        if job_id not in self._texts:
            return None
        with self._lock:
            text = self._pop(job_id)
        return text and fastjson.decode(text)

    def _pop(self, job_id: str) -> bytes | None:
        text = self._texts.pop(job_id, None)
        if text is not None:
            self._size -= OVERHEAD + len(text)
        return text
