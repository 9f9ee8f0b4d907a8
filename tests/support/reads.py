"""Notes what is read of objects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from transforms.media.positioned_file import PositionedFile
from transforms.storage import objects


class CountedFile(PositionedFile):
    """Notes each read."""

    def __init__(self, file: PositionedFile, note: Callable[[tuple[int, int]], None]) -> None:
        super().__init__()
        self._file, self._note = file, note

    def read_at(self, position: int, size: int) -> bytes:
        self._note((position, position + size))
        return self._file.read_at(position, size)

    def find_end(self) -> int:
        return self._file.find_end()

    def close(self) -> None:
        self._file.close()
        super().close()


class Reads:
    """What was asked for of objects, [start, stop) each; whole objects as None."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spans: list[tuple[int, int] | None] = []
        self.uris: list[str] = []
        """Of each of them the object."""
        open_ranges, read_bytes = objects.open_ranges, objects.read_bytes

        def whole(uri: str) -> bytes:
            self.spans.append(None)
            self.uris.append(uri)
            return read_bytes(uri)

        def ranges(uri: str) -> PositionedFile:
            return CountedFile(open_ranges(uri), lambda span: self._note(uri, span))

        monkeypatch.setattr(objects, "open_ranges", ranges)
        monkeypatch.setattr(objects, "read_bytes", whole)

    def _note(self, uri: str, span: tuple[int, int]) -> None:
        self.spans.append(span)
        self.uris.append(uri)

    def clear(self) -> None:
        """Forgets what was read."""
        self.spans.clear()
        self.uris.clear()

    @property
    def size_bytes(self) -> int:
        return self.bytes_of("")

    def bytes_of(self, part: str) -> int:
        """Returns how many bytes were read of objects with some part in their name, by ranges."""
        spans = zip(self.uris, self.spans, strict=True)
        return sum(span[1] - span[0] for uri, span in spans if span and part in uri)
