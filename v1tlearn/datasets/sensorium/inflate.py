"""Inflating deflated data, by libdeflate where it is installed, else by zlib."""

from __future__ import annotations

import zlib

from v1tlearn.datasets.checksums import crc32, deflate

__all__ = ["Content", "crc32", "inflate"]

_COUNTED = 2**32 - 1  # bytes that the binding of libdeflate makes at most

Content = bytes | bytearray | memoryview


def inflate_by_zlib(content: Content, n_bytes: int) -> bytes | bytearray | None:
    """Inflate data to at most `n_bytes` bytes; None where they are damaged or go on."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = stream.decompress(content, n_bytes + 1)  # 0 would mean without limit
    except zlib.error:
        return None
    return data if stream.eof and len(data) <= n_bytes else None


def inflate_by_libdeflate(content: Content, n_bytes: int) -> bytes | bytearray | None:
    """Do the same in less than half the time."""
    if n_bytes > _COUNTED:
        return inflate_by_zlib(content, n_bytes)
    try:
        return deflate.deflate_decompress(content, n_bytes)
    except deflate.DeflateError:
        return None


inflate = inflate_by_zlib if deflate is None else inflate_by_libdeflate
