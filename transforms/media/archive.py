"""Walks the members of an archive once, in order: tar, gzipped tar, zip or a folder, told apart by content.

Nothing is extracted: a member is a name and a stream. What is no regular file, has a path that leaves the archive, or cannot be
read is a member with a `problem` and without bytes: the walk goes on behind it as long as there is a way to go on.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, cast

from transforms.media.errors import ArchiveError, CodecProcessError
from transforms.media.gunzip import Gunzip
from transforms.media.model import LimitSettings, utf8_text
from transforms.media.tar import BLOCK_BYTES, CutOffError, TarReader, looks_like_tar
from transforms.media.zip_scan import DamageError, ScannedMember, scan_zip

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_FOREIGN_MAGICS = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"#!rtpplay": "a bare rtpdump",
}
FREE_BYTES = 64 << 20
"""Expanded bytes within which no ratio is looked at: zeros alone, or text, may well compress a thousandfold."""
_BUFFER_BYTES = 1 << 18
_NAME_SHOWN_CHARACTERS = 200
# A zip's directory is read whole: this much by member that is allowed, 46 bytes and a name each.
_DIRECTORY_BYTES_PER_MEMBER = 256
_LEAST_DIRECTORY_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED_FLAGS = 0x2041  # encrypted, strongly encrypted, directory encrypted (APPNOTE 4.4.4)
# What the standard library raises over damaged or hostile zips. None of them is a `RecordingError`, so trouble of the storage
# underneath passes through.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,  # bz2
    ValueError,  # names that are no text, seeks before the start
    IndexError,
    KeyError,
    RuntimeError,  # encrypted, or compressed in a way that is not supported
)


class MemberStream(io.RawIOBase):
    """A member's bytes. Damage met in them is an `ArchiveError` that names the member, raised after all bytes before it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Args: read: gives up to so many bytes, none at the end; raises `ArchiveError`."""
        self._read_some = read
        self._error: ArchiveError | CodecProcessError | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether damage was met, raised already or with the next read."""
        return self._error is not None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns `size` bytes, fewer before the end or damage only; without a size all of them, or raises."""
        wanted = -1 if size is None else size
        parts: list[bytes] = []
        missing = wanted if wanted >= 0 else _BUFFER_BYTES
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
    """Its path inside the archive; as it is spelled there, cut, when it has a problem, and empty where there is no name."""
    size_bytes: int
    """As the archive states it; the stream is what counts."""
    stream: BinaryIO
    """Valid until the next member is asked for."""
    problem: ArchiveError | None = None
    """Why its bytes are not to be had; the stream is empty then."""
    is_suspect: bool = False
    """Whether the problem is told whatever the name ends in: a path that leaves the archive, bytes that are nothing."""


@dataclass(slots=True)
class _Meter:
    """Holds a walk to the limits by what really comes out of the archive."""

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
            raise ArchiveError(f"expands past {self.limits.max_archive_bytes} bytes (limits.max_archive_bytes)")
        if self.compressed_bytes is not None and self.is_bomb(self.expanded_bytes, self.compressed_bytes):
            raise ArchiveError(
                f"{self.compressed_bytes} bytes expand to {self.expanded_bytes} and more, expected at most "
                f"{self.limits.max_expansion_ratio} times as many (limits.max_expansion_ratio)"
            )
        self._check_time()

    def is_bomb(self, expanded_bytes: int, compressed_bytes: int) -> bool:
        return expanded_bytes > max(FREE_BYTES, compressed_bytes * self.limits.max_expansion_ratio)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            seconds = self.limits.max_archive_seconds
            raise CodecProcessError(f"reading the archive took more than {seconds} s (limits.max_archive_seconds)")


def walk_archive(stream: BinaryIO, limits: LimitSettings) -> Iterator[Member]:
    """Yields the entries of an archive that are no folders, in the archive's order.

    Args:
      stream: the archive; a zip is read by seeking, everything else forward only.
      limits: bounds on entries, names, expanded bytes and time.

    Raises:
      ArchiveError: neither tar, gzipped tar nor zip; damaged so that there is no way on (after the members before the damage
        were given; not when a member's stream has raised it already); over a limit.
      CodecProcessError: past its time.
    """
    buffered = io.BufferedReader(cast("io.RawIOBase", stream), 1 << 20)
    head = buffered.peek(BLOCK_BYTES)[:BLOCK_BYTES]
    meter = _Meter(limits)
    if not head:
        raise ArchiveError("the file is empty, expected tar, gzipped tar or zip")
    if head.startswith(_ZIP_MAGICS):
        yield from _zip_members(buffered, meter)
    elif head.startswith(_GZIP_MAGIC):
        gunzip = Gunzip(buffered, meter.add_bytes)
        unzipped = io.BufferedReader(gunzip, _BUFFER_BYTES)
        head = unzipped.read(BLOCK_BYTES)
        if not looks_like_tar(head):
            found = f"damaged archive: {gunzip.damage}" if gunzip.damage else "gzip data that does not hold a tar archive"
            raise ArchiveError(f"{found}, expected .tar.gz")
        yield from _tar_members(TarReader(unzipped, head), meter, gunzip)
    elif looks_like_tar(head):
        yield from _tar_members(TarReader(_Metered(buffered, meter)), meter, None)
    else:
        named = next((f" ({name})" for magic, name in _FOREIGN_MAGICS.items() if head.startswith(magic)), "")
        raise ArchiveError(f"begins with {head[:8]!r}{named}, expected tar, gzipped tar or zip")


def walk_folder(
    members: Sequence[tuple[str, int]],
    open_member: Callable[[str], BinaryIO],
    limits: LimitSettings,
    why_not: Callable[[str], str | None] = lambda _: None,
) -> Iterator[Member]:
    """Yields the files of an unpacked folder as `walk_archive` does.

    Args:
      members: path relative to the folder, and size in bytes.
      open_member: opens one by its relative path.
      limits: as for `walk_archive`.
      why_not: what a member is instead of a file of the folder, None for a file; asked before it is opened.
    """
    meter = _Meter(limits)
    for name, size in members:
        meter.add_entry()
        with contextlib.ExitStack() as opened:
            read = _file_read(partial(open_member, name), opened, meter)
            member = _make_member(name, size, why_not(name), read, limits)
            if member is not None:
                yield member


def _file_read(open_file: Callable[[], Any], opened: contextlib.ExitStack, meter: _Meter) -> Callable[[int], bytes]:
    """Returns what reads a file, opened when its first byte is asked for."""
    stream: BinaryIO | None = None

    def read(size: int) -> bytes:
        nonlocal stream
        if stream is None:
            stream = cast("BinaryIO", opened.enter_context(open_file()))
        data = stream.read(size)
        meter.add_bytes(len(data))
        return data

    return read


def _tar_members(reader: TarReader, meter: _Meter, gunzip: Gunzip | None) -> Iterator[Member]:

    def damage(error: CutOffError) -> ArchiveError:
        return ArchiveError((gunzip.damage if gunzip else None) or f"cut off: {error}")

    def read(size: int) -> bytes:
        try:
            return reader.read(size)
        except CutOffError as error:
            raise damage(error) from None

    try:
        for entry in reader.entries():
            if gunzip and gunzip.damage and not entry.name:
                break  # half a header at the end
            meter.add_entry()
            if entry.is_folder:
                continue
            member = _make_member(entry.name, entry.size_bytes, entry.problem, read, meter.limits)
            if member is None:
                continue
            yield member
            if cast("MemberStream", member.stream).is_damaged:
                return  # it has been told, and there is nothing behind it
    except CutOffError as error:
        raise ArchiveError(f"damaged archive: {damage(error).message}") from None
    if gunzip is None:
        if not reader.has_end:
            raise ArchiveError(
                f"damaged archive: ends at byte {meter.expanded_bytes} without an end mark, members may be missing"
            )
    elif gunzip.damage:
        raise ArchiveError(f"damaged archive: {gunzip.damage}")
    elif gunzip.foreign_at is not None:
        yield _no_member(f"at byte {gunzip.foreign_at} something follows that is no gzip data, expected the end of the file")


class _Metered:
    """A plain tar's bytes, counted."""

    def __init__(self, source: io.BufferedReader[Any], meter: _Meter) -> None:
        self._source = source
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._meter.add_bytes(len(data))
        return data


def _zip_members(stream: BinaryIO, meter: _Meter) -> Iterator[Member]:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    meter.compressed_bytes = size
    directory_bytes = max(_LEAST_DIRECTORY_BYTES, meter.limits.max_members * _DIRECTORY_BYTES_PER_MEMBER)
    try:
        archive = zipfile.ZipFile(cast("BinaryIO", _BoundedReads(stream, directory_bytes)))
        infos = archive.infolist()
        if any(info.header_offset < 0 for info in infos):
            raise zipfile.BadZipFile("the directory is not where the file says")
    except _DAMAGE as error:
        yield from _scanned_members(stream, meter)
        raise ArchiveError(f"damaged archive: {error or type(error).__name__}; read without its directory") from None
    with archive:
        inside = _beginning_inside_others(infos)
        for number, info in enumerate(infos):
            meter.add_entry()
            if info.filename.endswith("/"):
                continue
            name = info.orig_filename if "\0" in info.orig_filename else info.filename
            problem = _zip_problem(info, meter)
            if problem is None and number in inside:
                problem = "a member that begins inside another one"
            with contextlib.ExitStack() as opened:
                read = _zip_read(partial(archive.open, info), opened, meter)
                member = _make_member(name, info.file_size, problem, read, meter.limits)
                if member is not None:
                    yield member


def _scanned_members(stream: BinaryIO, meter: _Meter) -> Iterator[Member]:
    """Yields what a zip holds by the headers of the members themselves."""
    for found in scan_zip(stream):
        meter.add_entry()

        def read(size: int, found: ScannedMember = found) -> bytes:
            try:
                data = found.read(size)
            except DamageError as error:
                raise ArchiveError(str(error)) from None
            meter.add_bytes(len(data))
            return data

        member = _make_member(found.name, found.size_bytes, found.problem, read, meter.limits)
        if member is not None:
            yield member


def _zip_read(open_member: Callable[[], Any], opened: contextlib.ExitStack, meter: _Meter) -> Callable[[int], bytes]:
    read_file = _file_read(open_member, opened, meter)

    def read(size: int) -> bytes:
        try:
            return read_file(size)
        except _DAMAGE as error:
            raise ArchiveError(f"{error or type(error).__name__}") from None

    return read


def _zip_problem(info: zipfile.ZipInfo, meter: _Meter) -> str | None:
    """Returns what an entry of the directory is instead of a file that can be read."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind and kind != stat.S_IFREG:
        return "a symbolic link" if kind == stat.S_IFLNK else "no regular file"
    if info.flag_bits & _ENCRYPTED_FLAGS:
        return "an encrypted member"
    # What it states is only worth a refusal: what comes out is counted all the same.
    if info.file_size > meter.limits.max_archive_bytes or meter.is_bomb(info.file_size, info.compress_size):
        return (
            f"a member of {info.compress_size} bytes that expands to {info.file_size} (limits.max_archive_bytes, "
            "limits.max_expansion_ratio)"
        )
    return None


def _beginning_inside_others(infos: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Returns the indices of entries whose bytes begin within those of another: how a small zip says the same thing often."""
    found: set[int] = set()
    end = 0
    for number in sorted(range(len(infos)), key=lambda n: (infos[n].header_offset, n)):
        info = infos[number]
        if info.header_offset < end:
            found.add(number)
        end = max(end, info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size)
    return found


class _BoundedReads:
    """A zip's file, for `zipfile`: it reads a directory as large as the file says in one go, and each entry costs an object."""

    def __init__(self, stream: BinaryIO, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size > self._limit_bytes:
            raise zipfile.BadZipFile(f"a directory of {size} bytes, expected at most {self._limit_bytes} (limits.max_members)")
        return self._stream.read(self._limit_bytes if size < 0 else size)


def _make_member(
    name: str, size: int, problem: str | None, read: Callable[[int], bytes], limits: LimitSettings
) -> Member | None:
    """Returns a member with its path made plain, or with what is wrong with it; None for what macOS adds to archives."""
    if not name:
        return _no_member(problem or "a member without a name")
    plain = utf8_text(name)
    parts = plain.replace("\\", "/").split("/")
    shown = repr(plain[:_NAME_SHOWN_CHARACTERS]) + ("..." if len(plain) > _NAME_SHOWN_CHARACTERS else "")
    if parts[0] == "__MACOSX" or parts[-1].startswith("._"):
        return None  # resource forks
    wrong, is_suspect = None, True
    if plain.startswith(("/", "\\")) or ".." in parts or "\0" in plain or ":" in parts[0]:
        wrong = f"member {shown} leaves the archive, expected a relative path inside it"
    elif len(plain.encode("utf-8")) > limits.max_member_name_bytes:
        wrong = (
            f"member {shown} has a name of {len(plain.encode('utf-8'))} bytes, expected at most "
            f"{limits.max_member_name_bytes} (limits.max_member_name_bytes)"
        )
    elif problem is not None:
        wrong, is_suspect = f"member {shown} is {problem}, expected a file", False
    if wrong is not None:
        cut = utf8_text(plain.encode("utf-8")[: limits.max_member_name_bytes].decode("utf-8", "ignore"))
        return Member(
            name=cut, size_bytes=size, stream=_empty(), problem=ArchiveError(wrong, member=cut), is_suspect=is_suspect
        )
    path = "/".join(part for part in parts if part not in ("", "."))

    def named(wanted: int) -> bytes:
        try:
            return read(wanted)
        except ArchiveError as error:
            prefix = "" if "(limits." in error.message else "damaged: "
            raise ArchiveError(f"{path}: {prefix}{error.message}", member=path) from None

    return Member(name=path, size_bytes=size, stream=cast("BinaryIO", MemberStream(named)))


def _no_member(problem: str) -> Member:
    return Member(name="", size_bytes=0, stream=_empty(), problem=ArchiveError(problem), is_suspect=True)


def _empty() -> BinaryIO:
    return cast("BinaryIO", MemberStream(lambda _: b""))
