"""Standard output and error of the command, made so that what they cannot take costs the message
and not the work: a pipe that nobody reads any more, a full disk, a stream that is closed, an
encoding that cannot spell a name.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_STANDARD_FDS = 3


class _ForgivingStream(io.TextIOBase):
    """A text stream over one that may fail: from then on nothing is written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._failed = stream is None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return getattr(self._stream, "errors", None)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        try:
            return not self._failed and self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if not self._failed and self._stream is not None:
            try:
                self._stream.write(_spelled(text, self.encoding))
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        if not self._failed and self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        """Leads the stream to nowhere: what it holds still would make the end of the process fail
        as well.
        """
        self._failed = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        with contextlib.suppress(OSError, ValueError):
            assert self._stream is not None
            self._stream.flush()


def _spelled(text: str, encoding: str) -> str:
    """Returns text that an encoding can spell: other characters as JSON escapes them, so that JSON
    stays what it is.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_spelled_character(character, encoding) for character in text)
    except LookupError:
        return text
    return text


def _spelled_character(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(character)[1:-1]
    return character


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
    """Lets the block write to standard output and error whatever has become of them."""
    _occupy_standard_fds()
    before: tuple[Any, Any] = (sys.stdout, sys.stderr)
    ours = _ForgivingStream(sys.stdout), _ForgivingStream(sys.stderr)
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:
        for stream in ours:
            stream.flush()
        sys.stdout, sys.stderr = before


def _occupy_standard_fds() -> None:
    """Opens nowhere in place of standard streams that are closed: else the next file opened would
    be the standard output of every child.
    """
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) < _STANDARD_FDS:
            os.set_inheritable(fd, True)
        os.close(fd)
