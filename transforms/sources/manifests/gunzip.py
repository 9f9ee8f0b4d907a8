"""Expands gzip (RFC 1952) under a bound."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator

from transforms.media import caps
from transforms.sources.manifests import bounds

MAGIC = b"\x1f\x8b"
_GZIP = 31  # RFC 1952 members, by zlib
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+", re.ASCII)


class GunzipError(Exception):
    """What cannot be expanded, or not all of it. The message says why."""


def gunzip_chunks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields what gzip members, one after the other, expand to. Raises: GunzipError, once all
    before the damage was yielded.
    """
    expanded_bytes = compressed_bytes = 0
    expander = zlib.decompressobj(_GZIP)
    is_between = True
    for chunk in chunks:
        compressed_bytes += len(chunk)
        rest = chunk
        while rest:
            if is_between:
                rest = rest.lstrip(b"\0")  # padding, as of tape blocks
                if not rest:
                    break
                expander = zlib.decompressobj(_GZIP)
                is_between = False
            try:
                expanded = expander.decompress(rest, bounds.CHUNK_BYTES)
            except zlib.error:
                raise GunzipError("the gzip data is damaged") from None
            rest = expander.unused_data if expander.eof else expander.unconsumed_tail
            is_between = expander.eof
            expanded_bytes += len(expanded)
            if (
                expanded_bytes > caps.UNQUESTIONED_EXPANDED_BYTES
                and expanded_bytes > bounds.MAX_EXPANSION_RATIO * compressed_bytes
            ):
                raise GunzipError(
                    f"the gzip data expands to more than {bounds.MAX_EXPANSION_RATIO} times its "
                    "size"
                )
            if expanded:
                yield expanded
    if not is_between:
        raise GunzipError("the gzip data breaks off")


def is_base64_gzip(text: str) -> bool:
    """Whether a text looks like base64 of gzip."""
    return text.startswith("H4sI")  # of the magic bytes and method 8


def gunzip_base64(text: str) -> bytes:
    """Returns what base64 of gzip expands to. Raises: GunzipError."""
    if not _BASE64.fullmatch(text):
        raise GunzipError("no base64: there are other characters in it")
    try:
        packed = base64.b64decode(text)
    except binascii.Error:
        raise GunzipError("no base64") from None
    try:
        expander = zlib.decompressobj(_GZIP)
        expanded = expander.decompress(packed, bounds.MAX_ENTRY_BYTES)
        if expander.unconsumed_tail:
            raise GunzipError(f"it expands to more than {bounds.MAX_ENTRY_BYTES:,} bytes")
    except zlib.error:
        raise GunzipError("the gzip data is damaged") from None
    if not expander.eof:
        raise GunzipError("the gzip data breaks off")
    return expanded
