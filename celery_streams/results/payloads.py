"""What is stored as a result: within limits, and alike for every JSON encoder."""

import sys
from math import isfinite
from types import NoneType
from typing import Any

from celery.backends import base

from celery_streams.compression import decompress
from celery_streams.errors import Unreadable

_base: Any = base

#: Prefix of a compressed result.
COMPRESSED_PREFIX: bytes = _base.COMPRESSED_PAYLOAD_MAGIC
#: Size limit of a decompressed result, in bytes.
MAX_BYTES = 256 * 1024 * 1024
#: Limit on an integer's bits to encode it here; well below CPython's limit of 4300 digits.
MAX_BITS = 10_000


def decompressed(payload: Any) -> Any:
    """Return a payload, decompressed to at most MAX_BYTES."""
    if not (isinstance(payload, bytes) and payload.startswith(COMPRESSED_PREFIX)):
        return payload
    method, _, body = payload.removeprefix(COMPRESSED_PREFIX).partition(b"\0")
    text = decompress(body, method.decode(errors="replace"), MAX_BYTES, "the limit of results")
    if text.startswith(COMPRESSED_PREFIX):
        raise Unreadable("a result cannot be read: it is compressed twice")
    return text


def raised(error: Exception) -> Exception:
    """Return the error being handled if `error` is Celery's substitute for it, else `error`."""
    raised = sys.exc_info()[1]
    is_substitute = (
        isinstance(raised, Exception)
        and raised is not error
        and error.__traceback__ is not None
        and error.__traceback__ is raised.__traceback__
    )
    return raised if is_substitute else error  # type: ignore[return-value]  # an Exception


def is_portable(value: Any) -> bool:
    """Return True for a scalar that every JSON encoder writes in the same way."""
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() < MAX_BITS)
    if kind is float:
        return isfinite(value)
    return kind in (bool, NoneType) or (kind is str and value.isascii())
