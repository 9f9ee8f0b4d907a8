"""Reads manifests of all shapes, told by their content.

- The vendor's list of recordings: `{"duration": "...", "recordings": [...]}`, several of them, or
  the recordings alone as a list or one a line.
- Bodies of `call.recording_ready`, one a line, a single one however it is indented, or a list of
  them; as they came through SQS (also base64 of gzip, also in the answer of `receive-message`) and
  SNS (in its envelope).
- CSV with a header that names a column `url` or `uri`.
- Links, URIs and absolute paths, one a line.

Each of them may be gzipped. Memory does not depend on the length of a manifest, and each byte is
looked at a fixed number of times.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from transforms.media.errors import ConfigError, UnreadableManifestError
from transforms.media.text import printable
from transforms.sources.manifests import bounds
from transforms.sources.manifests.entries import (
    Found,
    Unread,
    is_document,
    parse_json,
    read_json,
    read_text,
    read_value,
)
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.gunzip import MAGIC, GunzipError, gunzip_chunks
from transforms.sources.manifests.kinds import are_values
from transforms.sources.manifests.lines import split_lines
from transforms.sources.manifests.showing import show_text
from transforms.sources.manifests.tables import TableHeader, read_header
from transforms.sources.manifests.values import Piece, ValueSplitter
from transforms.storage import uris
from transforms.storage.named import has_scheme, name_object, shown

_SHAPES = (
    "the vendor's list of recordings (JSON), call.recording_ready events (JSON Lines, also as SQS "
    "and SNS deliver them), CSV with a column url or uri, or links and URIs one a line"
)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_entries(name: str, file: BinaryIO) -> Iterator[ManifestEntry | LeftOut | BadEntry]:
    """Yields what a manifest names, entry by entry; an archive that it names twice comes twice.

    Args:
      name: of the manifest, for messages.
      file: its content, read from here to its end.

    Raises:
      UnreadableManifestError: as a whole it is of no shape that is read. One that is empty is of
        every shape.
      StorageError: from reads.
    """
    manifest = shown(name)
    bad_count = 0
    for found in _read_known(manifest, iter(lambda: file.read(bounds.CHUNK_BYTES), b"")):
        if not isinstance(found, Unread):
            yield found
        elif (bad_count := bad_count + 1) <= bounds.MAX_BAD_ENTRIES:
            yield BadEntry(manifest=manifest, position=found.position, why=found.why)
    if (untold := bad_count - bounds.MAX_BAD_ENTRIES) > 0:
        why = f"{untold:,} more entries cannot be read"
        yield BadEntry(manifest=manifest, position="after those", why=why)


def tell_shape(name: str, beginning: bytes) -> None:
    """Finds out whether a manifest is of a shape that is read.

    Args:
      name: of the manifest, for the message; it need be no path.
      beginning: its first `bounds.BEGINNING_BYTES`, or all of it.

    Raises:
      ConfigError: it is not.
    """
    is_whole = len(beginning) < bounds.BEGINNING_BYTES
    try:
        next(_read_known(printable(uris.shown(name)), iter([beginning]), is_whole=is_whole), None)
    except UnreadableManifestError as error:
        raise ConfigError(error.message) from None


def _read_known(
    manifest: str, chunks: Iterator[bytes], *, is_whole: bool = True
) -> Iterator[Found]:
    """Yields what a manifest names, once something in it is of a known shape.

    Raises: UnreadableManifestError: nothing is, or nothing for long.
    """
    held: list[Unread] = []
    is_known = False
    for found in _read_any(chunks, is_whole=is_whole):
        if is_known:
            yield found
        elif isinstance(found, Unread) and not found.is_known:
            held.append(found)
            if len(held) > bounds.MAX_BAD_ENTRIES:
                raise _unreadable(manifest, held[0])
        else:
            is_known = True
            yield from held
            held.clear()
            yield found
    if held:
        raise _unreadable(manifest, held[0])


def _unreadable(manifest: str, first: Unread) -> UnreadableManifestError:
    return UnreadableManifestError(
        f"{manifest}: a manifest of no known shape, {first.position}: {first.why}; known are "
        f"{_SHAPES}"
    )


def _read_any(chunks: Iterator[bytes], *, is_whole: bool) -> Iterator[Found]:
    """Yields what a stream names. Args: is_whole: whether its end is one, and not where it was cut
    off.
    """
    stream = _Expanded(chunks)
    beginning, chunks = _peek(stream.chunks())
    if beginning.startswith(_UTF16):
        yield Unread(position="its text", why="UTF-16, expected UTF-8")
        return
    if beginning.startswith(codecs.BOM_UTF8):
        beginning = beginning[len(codecs.BOM_UTF8) :]
        chunks = _without_mark(chunks)
    is_all = is_whole and len(beginning) < bounds.BEGINNING_BYTES - len(codecs.BOM_UTF8)
    reader = _read_values if are_values(beginning, is_all=is_all) else _read_lines
    last = "nothing"
    for position, entries in reader(chunks, is_whole=is_whole):
        last = position
        yield from entries
    if stream.damage is not None and is_whole:
        why = f"{stream.damage}, what comes then cannot be read"
        yield Unread(position=f"after {last}", why=why)


def _read_values(
    chunks: Iterator[bytes], *, is_whole: bool
) -> Iterator[tuple[str, Iterable[Found]]]:
    for piece in ValueSplitter(chunks).split():
        if piece.is_complete or is_whole:
            yield piece.position, _read_piece(piece, piece.position)


def _read_piece(piece: Piece, position: str) -> Iterable[Found]:
    if piece.text is None:
        return [_too_long(position)]
    if not piece.text:
        return [Unread(position=position, why="here the list breaks off")]
    return read_json(piece.text, position)


def _read_lines(
    chunks: Iterator[bytes], *, is_whole: bool
) -> Iterator[tuple[str, Iterable[Found]]]:
    header: TableHeader | None = None
    is_first = True
    for number, line in split_lines(chunks, is_whole=is_whole):
        position = f"line {number}"
        if line is None:
            yield position, [_too_long(position)]
            continue
        line = line.strip(b"\r\n ")
        if not line or line.startswith(b"#"):
            continue
        if line.startswith((b"{", b"[")):
            yield position, _read_document(line, position)
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            why = f"byte {error.start + 1} of it is no UTF-8"
            yield position, [Unread(position=position, why=why)]
            continue
        if is_first:
            header, is_first = read_header(text), False
            if header is not None:
                continue
        if header is not None:
            yield position, [header.read_row(text, position)]
        elif is_document(text):
            yield position, read_text(text, position)
        else:
            yield position, [_read_name(text.strip(), position)]


def _read_document(line: bytes, position: str) -> Iterable[Found]:
    """Returns what a line of JSON names. Where it is no JSON as a whole, each entry of a list is
    read by itself, and each of several documents.
    """
    try:
        value = parse_json(line)
    except (ValueError, RecursionError):
        splitter = ValueSplitter(iter([line]))
        pieces = list(splitter.split())
        if not splitter.has_list and len(pieces) == 1:
            return read_json(line, position)
        found = (_read_piece(piece, f"{position}, {piece.position}") for piece in pieces)
        return itertools.chain.from_iterable(found)
    return read_value(value, position)


def _read_name(text: str, position: str) -> Found:
    """Returns what a line of text names."""
    try:
        named = name_object(text)
    except ValueError as error:
        why = f"{show_text(text)} {error}"
        return Unread(position=position, why=why, is_known=has_scheme(text))
    return ManifestEntry(uri=named.uri, link=named.link)


def _too_long(position: str) -> Unread:
    why = f"longer than {bounds.MAX_ENTRY_BYTES >> 20} MiB, the most that one entry may have"
    return Unread(position=position, why=why)


class _Expanded:
    """A stream, expanded where it is gzipped, up to where it is damaged."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.damage: GunzipError | None = None
        """What is wrong with the gzip data, once what comes before it was read."""

    def chunks(self) -> Iterator[bytes]:
        """Yields the stream."""
        beginning, chunks = _peek(self._chunks)
        if not beginning.startswith(MAGIC):
            yield from chunks
            return
        try:
            yield from gunzip_chunks(chunks)
        except GunzipError as error:
            self.damage = error


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Returns the beginning of a stream, and the stream from its beginning."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= bounds.BEGINNING_BYTES:
            break
    whole = b"".join(held)
    return whole[: bounds.BEGINNING_BYTES], itertools.chain([whole] if whole else [], chunks)


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks)
    return itertools.chain([first[len(codecs.BOM_UTF8) :]], chunks)
