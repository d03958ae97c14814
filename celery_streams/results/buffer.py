"""Results that are announced before the caller asks for them."""

from collections import OrderedDict
from threading import Lock
from typing import Any

from celery_streams import fastjson

#: Size of an entry besides its result, in bytes.
OVERHEAD = 300


class ResultBuffer:
    """Keeps at most `max_bytes` of results until they are asked for; drops the oldest first.

    Results are kept as JSON, whose size is known; Python objects take up to 20 times as much.
    Celery's own buffer never shrinks.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._texts: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def put(self, job_id: str, meta: Any) -> None:
        """Keep a job's result if it is plain."""
        text = fastjson.encode(meta)
        if text is None:
            return
        with self._lock:
            self._pop(job_id)
            self._texts[job_id] = text
            self._size += OVERHEAD + len(text)
            while self._size > self._max_bytes:
                self._pop(next(iter(self._texts)))

    def take(self, job_id: str) -> Any:
        """Remove and return a job's result; None if it is not there."""
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
