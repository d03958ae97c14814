"""Compressed bodies, valid ones and those that expand beyond the limit."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from kombu.compression import compress

from celery_streams.compression import decompress
from celery_streams.errors import Unreadable

MAX_BYTES = 100_000
BODY = b"[[4, 6], {}, {}]"


@pytest.mark.parametrize("method", ["gzip", "zlib", "bzip2", "lzma", "xz", "application/x-bz2"])
def test_what_kombu_compresses_is_decompressed(method: str) -> None:
    compressed, content_type = compress(BODY, method)

    assert decompress(compressed, content_type, MAX_BYTES) == BODY
    assert decompress(compressed, method, len(BODY)) == BODY


@pytest.mark.parametrize("pack", [zlib.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("size", [MAX_BYTES + 1, 100_000_000])
def test_a_body_that_expands_beyond_the_bound_is_refused(
    pack: Callable[[bytes], bytes], size: int
) -> None:
    method = {zlib.compress: "gzip", bz2.compress: "bzip2", lzma.compress: "lzma"}[pack]

    with pytest.raises(Unreadable, match=r"more than 100000 bytes \(max_message_bytes\)"):
        decompress(pack(bytes(size)), method, MAX_BYTES)


def test_a_decompressor_that_wants_much_memory_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    greedy = lzma.compress(BODY, format=lzma.FORMAT_XZ, filters=filters)

    with pytest.raises(Unreadable, match=r"cannot be decompressed: .*[Mm]emory"):
        decompress(greedy, "xz", MAX_BYTES)


@pytest.mark.parametrize("method", ["gzip", "bzip2", "lzma"])
@pytest.mark.parametrize("body", [b"", b"x", "text", b"\x1f\x8b" * 100])
def test_what_is_not_compressed_is_refused(method: str, body: Any) -> None:
    with pytest.raises(Unreadable, match="the body cannot be decompressed"):
        decompress(body, method, MAX_BYTES)


@pytest.mark.parametrize("method", ["rar", "", 7, ["gzip"], {}, None, "x" * 10**6])
def test_an_unknown_method_is_one_short_sentence(method: Any) -> None:
    with pytest.raises(Unreadable, match="compression is not supported") as raised:
        decompress(BODY, method, MAX_BYTES)

    assert len(str(raised.value)) < 200
