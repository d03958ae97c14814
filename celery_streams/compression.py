"""Decompression with a size limit, for message bodies and results.

Kombu's decompressors have no limit: 722 bytes of bzip2 expand to 1 GB.
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

#: Memory limit of the lzma decompressor, in bytes; `lzma.compress` at its highest level needs
#: 65 MiB.
LZMA_MEMORY = 128 * 1024 * 1024

#: For each of kombu's decompression functions, a decompressor class whose output can be limited.
_BOUNDED: dict[Any, Callable[[], Any]] = {
    zlib.decompress: zlib.decompressobj,
    bz2_decompress: BZ2Decompressor,
    lzma.decompress: partial(lzma.LZMADecompressor, memlimit=LZMA_MEMORY),
}
_zstd: Any = getattr(compression, "zstd", None)
if _zstd is not None:
    _BOUNDED[_zstd.decompress] = _zstd.ZstdDecompressor


def decompress(
    body: bytes | str, method: Any, limit: int, limit_name: str = "max_message_bytes"
) -> bytes:
    """Return `body`, decompressed to at most `limit` bytes; `method` is kombu's name of it.

    Raises Unreadable if the result is larger, the data is invalid, or the method is unknown or
    cannot be limited. `limit_name` is named in the error.
    """
    try:
        bounded = _BOUNDED[compression.get_decoder(method)]
    except (KeyError, TypeError):
        raise Unreadable(f"the compression is not supported: {ascii(method)[:80]}") from None
    data = body.encode() if isinstance(body, str) else body
    decompressor = bounded()
    try:
        found: bytes = decompressor.decompress(data, limit + 1)
    except Exception as error:  # noqa: BLE001 - each library has its own errors
        raise Unreadable(f"the body cannot be decompressed: {error}"[:200]) from None
    if len(found) > limit:
        raise Unreadable(f"the decompressed body has more than {limit} bytes ({limit_name})")
    if not decompressor.eof:
        raise Unreadable("the body cannot be decompressed: it is truncated")
    return found
