"""One entry of an archive: its plain path, its bytes as a stream, and what it may cost."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from transforms.media import caps
from transforms.media.errors import ArchiveError, CodecProcessError
from transforms.media.settings import LimitSettings
from transforms.media.text import utf8_text

BUFFER_BYTES = 1 << 18
# Other colons belong to the vendor's own names: `default:standup_timing_metadata.json`.
_DRIVE = re.compile(r"[A-Za-z]:")


class MemberStream(io.RawIOBase):
    """A member's bytes.

    Damage in them is an `ArchiveError` that names the member. It is raised when all bytes before it
    have been given.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Args: read: returns up to the bytes asked for, none at the end; raises `ArchiveError`."""
        self._read_some = read
        self._error: ArchiveError | CodecProcessError | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether damage was met, raised already or with the next read."""
        return self._error is not None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns `size` bytes, fewer only at the end or before damage; without a size all bytes.

        Raises:
          ArchiveError: the bytes are damaged, and there is none before the damage.
        """
        wanted = -1 if size is None else size
        parts: list[bytes] = []
        missing = wanted if wanted >= 0 else BUFFER_BYTES
        while missing > 0 and self._error is None:
            try:
                data = self._read_some(missing)
            except (ArchiveError, CodecProcessError) as error:
                self._error = error
                break
            if not data:
                break
            parts.append(data)
            missing -= len(data) if wanted >= 0 else 0
        if self._error is not None and (wanted < 0 or (wanted and not parts)):
            raise self._error
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of an archive that is no folder."""

    name: str
    """Its path inside the archive; as it is spelled there, cut, when it has a finding, and empty
    where there is no name.
    """
    size_bytes: int
    """As the archive states it; the stream is what counts."""
    stream: BinaryIO
    """Valid until the next member is asked for."""
    finding: ArchiveError | None = None
    """Why its bytes cannot be read; the stream is empty then."""
    is_suspect: bool = False
    """Whether the finding matters whatever the member's name ends in: a path that leaves the
    archive, or bytes that are no member.
    """


@dataclass(slots=True)
class Meter:
    """Counts what really comes out of an archive, and ends the walk when it passes a limit."""

    limits: LimitSettings
    compressed_bytes: int | None = None
    """What came in so far; None where nothing is compressed."""
    expanded_bytes: int = 0
    entry_count: int = 0
    _deadline: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.limits.max_archive_seconds

    def add_entry(self) -> None:
        self.entry_count += 1
        if self.entry_count > self.limits.max_members:
            raise ArchiveError(f"more than {self.limits.max_members} members (limits.max_members)")
        self._check_time()

    def add_bytes(self, count: int, compressed_bytes: int | None = None) -> None:
        self.expanded_bytes += count
        if compressed_bytes is not None:
            self.compressed_bytes = compressed_bytes
        if self.expanded_bytes > self.limits.max_archive_bytes:
            raise ArchiveError(
                f"expands past {self.limits.max_archive_bytes} bytes (limits.max_archive_bytes)"
            )
        if self.compressed_bytes is not None and self.is_bomb(
            self.expanded_bytes, self.compressed_bytes
        ):
            raise ArchiveError(
                f"{self.compressed_bytes} bytes expand to {self.expanded_bytes} and more, "
                "expected at most "
                f"{self.limits.max_expansion_ratio} times as many (limits.max_expansion_ratio)"
            )
        self._check_time()

    def is_bomb(self, expanded_bytes: int, compressed_bytes: int) -> bool:
        return expanded_bytes > max(
            caps.UNQUESTIONED_EXPANDED_BYTES, compressed_bytes * self.limits.max_expansion_ratio
        )

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            seconds = self.limits.max_archive_seconds
            raise CodecProcessError(
                f"reading the archive took more than {seconds} s (limits.max_archive_seconds)"
            )


def file_read(
    open_file: Callable[[], Any], opened: contextlib.ExitStack, meter: Meter
) -> Callable[[int], bytes]:
    """Returns a function that reads a file. The file is opened when its first byte is asked for."""
    stream: BinaryIO | None = None

    def read(size: int) -> bytes:
        nonlocal stream
        if stream is None:
            stream = cast("BinaryIO", opened.enter_context(open_file()))
        data = stream.read(size)
        meter.add_bytes(len(data))
        return data

    return read


def make_member(
    name: str,
    size: int,
    found_instead: str | None,
    read: Callable[[int], bytes],
    limits: LimitSettings,
) -> Member | None:
    """Returns a member under its plain path, or with a finding; None for a file that macOS adds to
    archives.

    Args:
      name: the path as the archive spells it.
      size: in bytes, as the archive states it.
      found_instead: what the entry is if it is no file that can be read, with its article.
      read: returns up to the bytes asked for.
      limits: bounds the length of a name.
    """
    if not name:
        return no_member(found_instead or "a member without a name")
    plain = utf8_text(name)
    parts = plain.replace("\\", "/").split("/")
    shown = repr(plain[: caps.MAX_NAME_CHARACTERS_SHOWN]) + (
        "..." if len(plain) > caps.MAX_NAME_CHARACTERS_SHOWN else ""
    )
    if parts[0] == "__MACOSX" or parts[-1].startswith("._"):
        return None  # resource forks
    wrong, is_suspect = None, True
    if plain.startswith(("/", "\\")) or ".." in parts or "\0" in plain or _DRIVE.match(plain):
        wrong = f"member {shown} leaves the archive, expected a relative path inside it"
    elif len(plain.encode("utf-8")) > limits.max_member_name_bytes:
        wrong = (
            f"member {shown} has a name of {len(plain.encode('utf-8'))} bytes, expected at most "
            f"{limits.max_member_name_bytes} (limits.max_member_name_bytes)"
        )
    elif found_instead is not None:
        wrong, is_suspect = f"member {shown} is {found_instead}, expected a file", False
    if wrong is not None:
        cut = utf8_text(
            plain.encode("utf-8")[: limits.max_member_name_bytes].decode("utf-8", "ignore")
        )
        return Member(
            name=cut,
            size_bytes=size,
            stream=_empty(),
            finding=ArchiveError(wrong, member=cut),
            is_suspect=is_suspect,
        )
    path = "/".join(part for part in parts if part not in ("", "."))

    def named(wanted: int) -> bytes:
        try:
            return read(wanted)
        except ArchiveError as error:
            prefix = "" if "(limits." in error.message else "damaged: "
            raise ArchiveError(f"{path}: {prefix}{error.message}", member=path) from None

    return Member(name=path, size_bytes=size, stream=cast("BinaryIO", MemberStream(named)))


def no_memory(member: str) -> CodecProcessError:
    """Returns the error of a member that needs too much memory. It costs that member only: what it
    took is free again, and its neighbours are read.
    """
    return CodecProcessError(
        f"{member}: needs more memory than it may take (limits.codec_memory_bytes)", member=member
    )


def no_member(message: str) -> Member:
    """Returns what stands for bytes that are no member at all."""
    return Member(
        name="", size_bytes=0, stream=_empty(), finding=ArchiveError(message), is_suspect=True
    )


def _empty() -> BinaryIO:
    return cast("BinaryIO", MemberStream(lambda _: b""))
