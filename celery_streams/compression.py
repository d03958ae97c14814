"""Decompression of message bodies within a bound.

Kombu's decompressors have none: 722 bytes of bzip2 expand to 1 GB.
"""

import lzma
import zlib
from bz2 import BZ2Decompressor
from bz2 import decompress as bz2_decompress
from collections.abc import Callable
from functools import partial
from typing import Any

from kombu import compression

from celery_streams.errors import Unreadable

#: Bytes that a decompressor may take for itself; what `lzma.compress` writes at its highest level
#: needs 65 MiB.
LZMA_MEMORY = 128 * 1024 * 1024

#: What kombu decompresses with, and what does the same within a bound.
_BOUNDED: dict[Any, Callable[[], Any]] = {
    zlib.decompress: zlib.decompressobj,
    bz2_decompress: BZ2Decompressor,
    lzma.decompress: partial(lzma.LZMADecompressor, memlimit=LZMA_MEMORY),
}
_zstd: Any = getattr(compression, "zstd", None)
if _zstd is not None:
    _BOUNDED[_zstd.decompress] = _zstd.ZstdDecompressor


def decompress(
    body: bytes | str, method: Any, most: int, bound: str = "max_message_bytes"
) -> bytes:
    """Return a body of at most `most` bytes, decompressed by a method that kombu knows by name.

    Raises Unreadable, in one sentence, for a body that is larger or not compressed so, and for a
    method that is unknown or cannot be bounded.
    """
    try:
        bounded = _BOUNDED[compression.get_decoder(method)]
    except (KeyError, TypeError):
        raise Unreadable(f"the compression is not an accepted one: {ascii(method)[:80]}") from None
    data = body.encode() if isinstance(body, str) else body
    decompressor = bounded()
    try:
        found: bytes = decompressor.decompress(data, most + 1)
    except Exception as error:  # noqa: BLE001 - each library has errors of its own
        raise Unreadable(f"the body cannot be decompressed: {error}"[:200]) from None
    if len(found) > most:
        raise Unreadable(f"the body has more than {most} bytes ({bound}), decompressed")
    if not decompressor.eof:
        raise Unreadable("the body cannot be decompressed: it ends too early")
    return found
