"""Tells how a manifest is to be split into entries, by its beginning."""

from __future__ import annotations

from transforms.sources.manifests.entries import parse_json
from transforms.sources.manifests.values import ValueSplitter

_MAX_LINES_TRIED = 50
_JSON = (b"{", b"[")


def are_values(beginning: bytes, *, is_all: bool) -> bool:
    """Whether a manifest is JSON that goes over lines as it likes, or is one long line, and not a
    document a line.

    Args:
      beginning: of the manifest.
      is_all: whether that is all of it.
    """
    text = beginning.lstrip()
    if not text.startswith(_JSON):
        return False
    lines = text.split(b"\n")
    if not is_all:
        del lines[-1]
    if not lines or (is_all and not any(line.strip() for line in lines[1:])):
        return True
    if _is_json(lines[0]):
        return False
    splitter = ValueSplitter(iter([text]))
    for piece in splitter.split():
        if piece.is_complete:
            if _is_json(piece.text or b""):
                return True
            break
    # What was cut off at the end of the beginning is no value, but a list is a list. And of lines
    # the first may be the damaged one.
    return splitter.has_list or not any(map(_is_object, lines[1:_MAX_LINES_TRIED]))


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and _is_json(line)


def _is_json(text: bytes) -> bool:
    try:
        parse_json(text)
    except (ValueError, RecursionError):  # also of bytes that are no text
        return False
    return True
