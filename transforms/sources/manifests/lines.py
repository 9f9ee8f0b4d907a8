"""Splits a stream into lines, of which only so much is held as one line may have."""

from __future__ import annotations

from collections.abc import Iterator

from transforms.sources.manifests import bounds


def split_lines(
    chunks: Iterator[bytes], *, is_whole: bool = True
) -> Iterator[tuple[int, bytes | None]]:
    """Yields the number of each line, from 1, and the line without its end; None for one that is
    too long.

    Args:
      chunks: the stream.
      is_whole: whether what stands behind the last end of a line is a line, too.
    """
    number, held, is_long = 1, b"", False
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        if rest or len(held) + len(first) <= bounds.MAX_ENTRY_BYTES:
            held += first
        else:
            held, is_long = b"", True
        for following in rest:
            yield number, None if is_long or len(held) > bounds.MAX_ENTRY_BYTES else held
            number, held, is_long = number + 1, following, False
    if is_whole and (held or is_long):
        yield number, None if is_long else held
