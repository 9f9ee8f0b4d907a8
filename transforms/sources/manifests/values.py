"""Splits JSON (RFC 8259) into the entries of its lists, or into its values where it has no list,
without reading all of it: each entry is parsed by itself, so that one that is damaged costs no
other.

Braces and brackets are counted and strings passed over, by regular expressions that a chunk is
matched against from its beginning to its end: each byte is looked at once, however it is split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from transforms.sources.manifests import bounds
from transforms.sources.manifests.entries import LIST_KEYS

_SPACE = re.compile(rb"[\s,]*+")
# No string of JSON has an end of line in it (s7): one that has was never ended, and ends there.
_PLAIN = re.compile(rb'(?:[^{}\[\]"]++|"(?:[^"\\\n]++|\\[^\n])*+["\n])*+')
_STRING = re.compile(rb'(?:[^"\\\n]++|\\[^\n])*+')
_OPENING = re.compile(rb"[{\[]++")
_CLOSING = re.compile(rb"[}\]]++")
_SCALAR = re.compile(rb"[^,\s{}\[\]]++")
_KEY_ENDS = tuple(b'"' + key.encode() + b'"' for key in LIST_KEYS)


class Piece(NamedTuple):
    """What stands for one entry."""

    position: str
    text: bytes | None
    """None where it is too long; empty where a list breaks off."""
    is_complete: bool
    """Whether its end came before that of the stream."""


class ValueSplitter:
    """Splits a stream of JSON values."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._data = b""
        self._at = 0
        self._has_ended = False
        self.has_list = False
        """Whether a list was met whose entries come one by one."""

    def split(self) -> Iterator[Piece]:
        """Yields the entries."""
        number = 0
        while first := self._skip_space():
            number += 1
            place = f"value {number}"
            if first == b"[":
                yield from self._split_list("" if number == 1 else place)
            elif first == b"{":
                yield from self._split_object(place, number)
            else:
                kept = _Kept()
                self._take_line(kept)
                yield self._piece(place, kept)

    def _piece(self, position: str, kept: _Kept) -> Piece:
        return Piece(position, kept.text(), not self._has_ended)

    def _more(self) -> bool:
        """Goes on to the next chunk; what is left of this one, if anything, comes first."""
        rest = self._data[self._at :]
        chunk = next(self._chunks, b"")
        self._data, self._at = rest + chunk, 0
        self._has_ended = not chunk
        return bool(chunk)

    def _skip_space(self) -> bytes:
        """Returns the next byte that is neither space nor comma, without taking it; empty at the
        end.
        """
        while True:
            found = _SPACE.match(self._data, self._at)
            assert found
            self._at = found.end()
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def _take_line(self, kept: _Kept) -> None:
        """Takes what is no object and no list: up to the end of the line."""
        while True:
            end = self._data.find(b"\n", self._at)
            kept.add(self._data[self._at : end if end >= 0 else len(self._data)])
            self._at = end + 1 if end >= 0 else len(self._data)
            if end >= 0 or not self._more():
                return

    def _split_list(self, place: str) -> Iterator[Piece]:
        """Yields the entries of a list; its bracket is next."""
        self.has_list = True
        self._at += 1
        number = 0
        while (first := self._skip_space()) not in (b"", b"]"):
            position = f"{place}[{number}]"
            number += 1
            kept = _Kept()
            if first in b"{[":
                for _ in self._collect(kept, lists=False):
                    pass
            elif first == b'"':
                self._at += 1
                kept.add(b'"')
                self._collect_string(kept)
            elif first == b"}":  # nothing that it could close
                self._at += 1
                kept.add(b"}")
            else:
                self._collect_scalar(kept)
            yield self._piece(position, kept)
        if not first:
            yield Piece(f"{place}[{number}]", b"", is_complete=False)
        self._at += 1

    def _split_object(self, place: str, number: int) -> Iterator[Piece]:
        """Yields an object, or the entries of a list in it that has the name of one."""
        kept = _Kept()
        had_list = False
        for key in self._collect(kept, lists=True):
            had_list = True
            yield from self._split_list(key if number == 1 else f"{place}, {key}")
        if not had_list:
            yield self._piece(place, kept)

    def _collect(self, kept: _Kept, *, lists: bool) -> Iterator[str]:
        """Takes a value up to the bracket that closes its first one, or to the end of the stream.

        Yields the key of a list of entries in the outermost object, if they are asked for, with the
        list next to be taken.
        """
        depth = 0
        while True:
            found = _PLAIN.match(self._data, self._at)
            assert found
            end = found.end()
            kept.add(self._data[self._at : end])
            self._at = end
            mark = self._data[end : end + 1]
            if not mark:
                if not self._more():
                    return
            elif mark == b'"':  # of a string that goes on in the next chunk
                self._at += 1
                kept.add(mark)
                self._collect_string(kept)
            elif mark == b"[" and lists and depth == 1 and (key := kept.list_key()):
                yield key
                kept.add(b"[]")
            elif opening := _OPENING.match(self._data, end):
                self._at = end + 1 if depth == 0 else opening.end()
                kept.add(self._data[end : self._at])
                depth += self._at - end
            elif closing := _CLOSING.match(self._data, end):
                self._at = min(closing.end(), end + depth)
                kept.add(self._data[end : self._at])
                depth -= self._at - end
                if depth == 0:
                    return

    def _collect_string(self, kept: _Kept) -> None:
        """Takes the rest of a string, with the quotation mark or the end of line that ends it."""
        while True:
            found = _STRING.match(self._data, self._at)
            assert found
            end = found.end()
            mark = self._data[end : end + 1]
            if mark in (b'"', b"\n") and mark:
                kept.add(self._data[self._at : end + 1])
                self._at = end + 1
                return
            if mark and len(self._data) > end + 1:  # a backslash before the end of a line
                kept.add(self._data[self._at : end + 1])
                self._at = end + 1
                continue
            kept.add(self._data[self._at : end])
            self._at = end  # a backslash at the end of the chunk is looked at with the next
            if not self._more():
                return

    def _collect_scalar(self, kept: _Kept) -> None:
        """Takes a number or a word."""
        while True:
            found = _SCALAR.match(self._data, self._at)
            end = found.end() if found else self._at
            kept.add(self._data[self._at : end])
            self._at = end
            if end < len(self._data) or not self._more():
                return


class _Kept:
    """The text of one value, as long as it is not too long."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._is_long = False

    def add(self, text: bytes) -> None:
        """Adds to it."""
        if len(self._text) + len(text) <= bounds.MAX_ENTRY_BYTES and not self._is_long:
            self._text += text
        else:
            self._text.clear()
            self._is_long = True

    def text(self) -> bytes | None:
        """Returns all of it; None where it is too long."""
        return None if self._is_long else bytes(self._text)

    def list_key(self) -> str:
        """Returns the key that stands last, if a list of entries stands under it; else nothing."""
        tail = bytes(self._text[-64:]).rstrip()
        tail = tail[:-1].rstrip() if tail.endswith(b":") else b""
        for key in _KEY_ENDS:
            if tail.endswith(key):
                return key[1:-1].decode()
        return ""
