"""Archives that nobody should send and somebody will: bombs, lies, damage, odd ids. Seeded, built
in memory, small.

Each holds a good call of Alice and Bob beside what is wrong, so that a test can ask for the good
part whole. Bombs cost nothing to build: one compressed block of zeros, over and over.
"""

from __future__ import annotations

import functools
import gzip
import io
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.builders import (
    CALL_START_UNIX_MS,
    OPUS_PAYLOAD_TYPE,
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_members,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    make_sdp,
    make_timing_metadata,
    tone,
)

Members = dict[str, bytes]
MALLORY = "mallory"
_SUFFIX = "_timing_metadata.json"
_BLOCK = 512
_GIB = 1 << 30
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """An archive and what must become of it."""

    data: bytes
    message: str | None
    """A pattern that the message of one failure matches; None where nothing is wrong after all."""
    whole: tuple[str, ...] = ("alice", "bob")
    """Participants whose audio must come out to the last packet."""
    call_id: str


# --- raw containers -------------------------------------------------------------------------------


def tar_header(
    name: bytes,
    size: int = 0,
    kind: bytes = b"0",
    *,
    link: bytes = b"",
    base256: bool = False,
    tail: bytes = b"",
) -> bytes:
    """Returns a ustar header (POSIX.1-2017), also one that the standard library would refuse to
    write.

    Args:
      name: up to 100 bytes.
      size: as stated.
      kind: the type flag.
      link: target of a link.
      base256: whether the size is written as GNU writes what does not fit in octal; needed below
        zero.
      tail: of the block's last 155 bytes.
    """
    stated = b"%011o\0" % size
    if base256:
        stated = (size % (1 << 96) | (0 if size < 0 else 1 << 95)).to_bytes(12, "big")
    block = (
        name.ljust(100, b"\0")
        + b"0000644\0"
        + b"0000000\0" * 2
        + stated
        + b"00000000000\0"
        + b" " * 8
        + kind
    )
    block = (block + link.ljust(100, b"\0") + b"ustar\x0000").ljust(345, b"\0") + tail
    block = block.ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def tar_entry(name: str | bytes, data: bytes = b"", kind: bytes = b"0", **header: Any) -> bytes:
    """Returns a header and its content, padded."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return tar_header(raw, len(data), kind, **header) + data + bytes(-len(data) % _BLOCK)


def pax_entry(records: Mapping[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    """Returns a PAX header. Args: records: by keyword, or as they stand there."""
    if not isinstance(records, bytes):
        text = b""
        for key, value in records.items():
            body = b" " + key + b"=" + value + b"\n"
            size = len(body) + 1
            while len(b"%d" % size) + len(body) != size:
                size += 1
            text += b"%d" % size + body
        records = text
    return tar_entry(b"pax", records, kind)


def gnu_long_name(name: bytes) -> bytes:
    """Returns what GNU tar writes before a member whose name is over 100 bytes."""
    return tar_entry(b"././@LongLink", name + b"\0", b"L")


def tar_of(members: Mapping[str, bytes]) -> bytes:
    """Returns the entries of a tar, without its end."""
    return b"".join(tar_entry(name, data) for name, data in members.items())


TAR_END = bytes(2 * _BLOCK)


def gzip_of(data: bytes) -> bytes:
    """Returns a gzip member."""
    return gzip.compress(data, compresslevel=1, mtime=0)


def deflate_zeros(
    before: bytes, zero_bytes: int, *, fill: bytes = b"\0", after: bytes = b""
) -> bytes:
    """Returns a raw deflate stream of `before`, a lot of one byte, and `after`; the lot costs a
    thousandth and no time.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = block.compress(fill * _MIB) + block.flush(zlib.Z_FULL_FLUSH)
    out += chunk * (zero_bytes // _MIB)
    return out + packer.compress(after) + packer.flush()


def gzip_bomb(before: bytes, zero_bytes: int, *, fill: bytes = b"\0", after: bytes = b"") -> bytes:
    """Returns gzip data of `before`, a lot of one byte, and `after`; its checksum is wrong, which
    nobody lives to see.
    """
    return (
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
        + deflate_zeros(before, zero_bytes, fill=fill, after=after)
        + bytes(8)
    )


def zip_of(
    members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """Returns a zip; members may have the same name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            info = (
                name
                if isinstance(name, zipfile.ZipInfo)
                else zipfile.ZipInfo(name, (2026, 1, 5, 10, 0, 0))
            )
            archive.writestr(info, data, method)
    return out.getvalue()


def zip_entry(
    name: bytes, content: bytes, *, size: int, crc: int = 0, method: int = 8, flags: int = 0
) -> tuple[bytes, bytes]:
    """Returns a local header with its content, and the directory entry less its offset (the last 4
    bytes before the name).
    """
    common = struct.pack(
        "<HHHHHIIIHH",
        45,
        flags,
        method,
        0,
        0x5C21,
        crc,
        len(content),
        size % (1 << 32),
        len(name),
        0,
    )
    local = b"PK\x03\x04" + common + name + content
    return local, b"PK\x01\x02" + struct.pack("<H", 45) + common + struct.pack(
        "<HHHI", 0, 0, 0, 0o100644 << 16
    )


def zip_with(
    good: Mapping[str, bytes], entries: Iterable[tuple[bytes, bytes, bytes, int | None]]
) -> bytes:
    """Returns a zip of good members and raw entries.

    Args:
      good: members written as they should be.
      entries: (name, local part, directory part, offset); None for an offset means where the local
        part comes to lie.
    """
    whole = zip_of(good.items())
    end = whole.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", whole, end + 10)
    body, directory = whole[:start], whole[start : start + size]
    for name, local, central, offset in entries:
        directory += central + struct.pack("<I", len(body) if offset is None else offset) + name
        body += local
        count += 1
    tail = struct.pack(
        "<HHHHIIH", 0, 0, count % (1 << 16), count % (1 << 16), len(directory), len(body), 0
    )
    return body + directory + b"PK\x05\x06" + tail


# --- the good call and the bad guest --------------------------------------------------------------


@functools.cache
def _speech(frequency_hz: int) -> tuple[bytes, ...]:
    return tuple(encode_opus(tone(frequency_hz, 1)))


def good_members(call_id: str, kind: str = "") -> Members:
    """Returns a call of Alice and Bob, a second each. Args: kind: where the members lie, a folder
    with a slash, or nowhere.
    """
    people = [
        Participant(
            participant_id=name,
            segments=[Segment(packets=_speech(hz), base_filename=f"{name}_1", ssrc=hz)],
        )
        for name, hz in (("alice", 300), ("bob", 500))
    ]
    return make_call_members(
        people, call_id=call_id, call_session_id=f"session-{call_id}", folder=kind
    )


def good_packets(participant_id: str) -> tuple[bytes, ...]:
    """Returns what Alice or Bob sent."""
    return _speech({"alice": 300, "bob": 500}[participant_id])


def _segment(base: str, **changes: Any) -> dict[str, Any]:
    return {
        "base_filename": base,
        "codec": "audio/opus",
        "track_id": "t",
        "track_type": "TRACK_TYPE_AUDIO",
        "first_rtp_unix_timestamp": CALL_START_UNIX_MS,
        **changes,
    }


def _metadata(call_id: str, *segments: Any, **changes: Any) -> bytes:
    fields = {
        "call_id": call_id,
        "call_session_id": f"session-{call_id}",
        "participant_id": MALLORY,
        "user_session_id": f"sess-{MALLORY}",
        "segments": {"audio": list(segments), "video": []},
    }
    return make_timing_metadata(fields, **changes)


def guest(
    call_id: str, dump: bytes | None, sdp: bytes | None = make_sdp(), **changes: Any
) -> Members:
    """Returns the members of one more participant with a dump of any content."""
    members = {f"{MALLORY}_1.rtpdump": dump, f"{MALLORY}_1.sdp": sdp}
    found = {name: data for name, data in members.items() if data is not None}
    return {**found, f"{MALLORY}{_SUFFIX}": _metadata(call_id, _segment(f"{MALLORY}_1", **changes))}


def dump_of(packets: Iterable[tuple[int, bytes, bool]]) -> bytes:
    """Returns a dump that begins with the call. Args: packets: (arrival in ms, packet, is_rtcp)."""
    return make_rtpdump(CALL_START_UNIX_MS * 1_000, packets)


def plain_packets(
    count: int, **changes: Callable[[int], Any] | Any
) -> list[tuple[int, bytes, bool]]:
    """Returns packets as they should be, with some fields changed. Args: changes: a value, or a
    function of the number.
    """
    speech = _speech(700)
    found = []
    for number in range(count):
        fields: dict[str, Any] = {
            "payload": speech[number % len(speech)],
            "sequence_number": number,
            "rtp_timestamp": 960 * number,
            "arrival_ms": 20 * number + 20,
        }
        for name, value in changes.items():
            fields[name] = value(number) if callable(value) else value
        arrival = fields.pop("arrival_ms")
        found.append((arrival, make_rtp_packet(**fields), False))
    return found


# --- the cases ------------------------------------------------------------------------------------

_CASES: dict[str, Callable[[str], Hostile]] = {}


def _case(
    name: str, message: str | None, whole: tuple[str, ...] = ("alice", "bob")
) -> Callable[[Callable[[str], bytes]], Callable[[str], bytes]]:
    """Registers what builds an archive, given the id of its call."""

    def register(build: Callable[[str], bytes]) -> Callable[[str], bytes]:
        call_id = name.split(".")[0]
        _CASES[name] = lambda _: Hostile(
            data=build(call_id), message=message, whole=whole, call_id=call_id
        )
        return build

    return register


def _archive(
    name: str,
    message: str | None,
    make: Callable[[str], Members],
    whole: tuple[str, ...] = ("alice", "bob"),
) -> None:
    """Registers a gzipped tar of the good call and some more members."""
    _case(name, message, whole)(
        lambda call_id: make_archive({**good_members(call_id), **make(call_id)})
    )


def _tar(
    name: str,
    message: str | None,
    make: Callable[[str], bytes],
    whole: tuple[str, ...] = ("alice", "bob"),
) -> None:
    """Registers a gzipped tar of the good call with raw entries before it."""
    _case(name, message, whole)(
        lambda call_id: gzip_of(make(call_id) + tar_of(good_members(call_id)) + TAR_END)
    )


# Paths.
for _name, _path in {
    "path_up": "../../escape.rtpdump",
    "path_inside_up": "x/../../escape.rtpdump",
    "path_absolute": "/etc/cron.d/escape.sdp",
    "path_backslash": "..\\..\\escape.rtpdump",
    "path_drive": "C:\\escape.rtpdump",
}.items():
    _tar(f"{_name}.tar.gz", "leaves the archive", lambda _, path=_path: tar_entry(path, b"evil"))
    _case(f"zip_{_name}.zip", "leaves the archive")(
        lambda call_id, path=_path: zip_of([(path, b"evil"), *good_members(call_id).items()])
    )
_tar(
    "path_nul.tar.gz",
    "leaves the archive",
    lambda _: pax_entry({b"path": b"a\0b.rtpdump"}) + tar_entry("x", b"evil"),
)
_tar(
    "path_not_text.tar.gz",
    "no timing metadata lists",
    lambda _: tar_entry(b"\xff\xfe\x80.rtpdump", b"evil"),
)
_tar(
    "path_terminal.tar.gz",
    r"\\x1b\[2Jevil",
    lambda _: tar_entry("\x1b[2Jevil\r\n\u202etxt.rtpdump", b"evil"),
)
_tar(
    "name_5000_gnu.tar.gz",
    "has a name of 5008 bytes",
    lambda _: gnu_long_name(b"n" * 5_000 + b".rtpdump") + tar_entry("x"),
)
_tar(
    "name_5000_pax.tar.gz",
    "has a name of 5008 bytes",
    lambda _: pax_entry({b"path": b"n" * 5_000 + b".rtpdump"}) + tar_entry("x"),
)
_tar(
    "name_2mib.tar.gz",
    "whose name or header takes",
    lambda _: gnu_long_name(b"n" * 2 * _MIB) + tar_entry("x.rtpdump"),
)

# What is no file.
_tar(
    "symlink_first.tar.gz",
    "a symbolic link",
    lambda _: tar_entry("alice_1.rtpdump", kind=b"2", link=b"/tmp/callpress-evil"),
)
_tar(
    "symlink_folder.tar.gz",
    "no timing metadata lists",
    lambda _: (
        tar_entry("d", kind=b"2", link=b"/tmp") + tar_entry("d/callpress-evil.rtpdump", b"evil")
    ),
)
_tar(
    "symlink_metadata.tar.gz",
    "a symbolic link",
    lambda _: tar_entry(f"x{_SUFFIX}", kind=b"2", link=b"/etc/passwd"),
)
_tar(
    "hard_link.tar.gz",
    "a hard link",
    lambda _: tar_entry("x.rtpdump", kind=b"1", link=b"/etc/passwd"),
)
_tar(
    "devices.tar.gz",
    "a block device",
    lambda _: tar_entry("c.sdp", kind=b"3") + tar_entry("b.rtpdump", kind=b"4"),
)
_tar("fifo.tar.gz", "a pipe", lambda _: tar_entry("x.rtpdump", kind=b"6"))
_tar(
    "links_of_no_matter.tar.gz",
    None,
    lambda _: tar_entry("latest", kind=b"2", link=b"x") + tar_entry("dev", kind=b"3"),
)
_tar(
    "sparse_4tib_old.tar.gz",
    "a sparse file",
    lambda _: tar_header(b"x.rtpdump", 0, b"S", tail=b"\0" * 138 + struct.pack(">Q", 1 << 42)),
)
_tar(
    "sparse_4tib_pax.tar.gz",
    "a sparse file",
    lambda _: (
        pax_entry(
            {
                b"GNU.sparse.major": b"1",
                b"GNU.sparse.minor": b"0",
                b"GNU.sparse.realsize": b"%d" % (1 << 42),
            }
        )
        + tar_entry("x.rtpdump", b"1\n0\n0\n".ljust(_BLOCK, b"\0"))
    ),
)

# Sizes that lie, headers that are broken.
_case("size_4tib_last.tar.gz", "cut off|ends at byte")(
    lambda call_id: gzip_of(
        tar_of(good_members(call_id)) + tar_header(b"x.rtpdump", 1 << 42, base256=True) + TAR_END
    )
)
_tar(
    "size_below_zero.tar.gz",
    "no header and no content",
    lambda _: tar_header(b"x.rtpdump", -(1 << 40), base256=True),
)
_tar(
    "pax_size_no_number.tar.gz",
    "PAX size is no number",
    lambda _: pax_entry({b"size": b"-5"}) + tar_entry("x.rtpdump"),
)
_tar(
    "pax_damaged.tar.gz",
    "damaged PAX header",
    lambda _: pax_entry(b"999 path=x\n") + tar_entry("x.rtpdump"),
)
_tar(
    "pax_quadratic.tar.gz",
    "damaged PAX header",
    lambda _: pax_entry(b"1" * (_MIB - 1)) + tar_entry("x.rtpdump"),
)
_tar("pax_global.tar.gz", None, lambda _: pax_entry({b"comment": b"x", b"size": b"99"}, b"g"))
_tar("pax_chain_20000.tar.gz", None, lambda _: pax_entry({b"comment": b"x"}) * 20_000)
_tar(
    "header_damaged.tar.gz",
    "no header and no content",
    lambda _: b"\xff" + tar_entry("x.rtpdump", b"lost" * 200)[1:],
)
_case("tar_without_end.tar", "without an end mark")(lambda call_id: tar_of(good_members(call_id)))
_case("tar_cut_in_a_header.tar", "no header and no content")(
    lambda call_id: tar_of(good_members(call_id)) + tar_header(b"x.rtpdump", 9)[:300]
)
_case("tar_garbage_behind.tar", "after its end mark")(
    lambda call_id: tar_of(good_members(call_id)) + TAR_END + b"\xffgarbage" * 500
)
_case("two_tars_in_a_row.tar", None)(
    lambda call_id: b"".join(
        tar_entry(name, data) + TAR_END for name, data in good_members(call_id).items()
    )
)


def _by_library(tar_format: int) -> Callable[[str], bytes]:
    def build(call_id: str) -> bytes:
        out = io.BytesIO()
        long = "x" * (90 if tar_format == tarfile.USTAR_FORMAT else 150)
        with tarfile.open(fileobj=out, mode="w:gz", format=tar_format) as tar:
            for name, data in {**good_members(call_id), f"{'deep/' * 12}{long}.txt": b"x"}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()

    return build


for _name, _format in {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}.items():
    _case(f"format_{_name}.tar.gz", None)(_by_library(_format))

# Many, and twice.
_tar(
    "members_empty_99000.tar.gz",
    None,
    lambda _: b"".join(tar_entry(f"m{n}.txt") for n in range(99_000)),
)
_tar(
    "members_too_many.tar.gz",
    "more than 100000 members",
    lambda _: b"".join(tar_entry(f"m{n}") for n in range(100_001)),
    (),
)
_case("dumps_unlisted_5000.tar.gz", "more of this kind in the archive")(
    lambda call_id: gzip_of(
        tar_of(good_members(call_id))
        + b"".join(tar_entry(f"d/{n}.rtpdump") for n in range(5_000))
        + TAR_END
    )
)
_case("members_twice.tar.gz", "a second member of this name")(
    lambda call_id: gzip_of(
        tar_of(good_members(call_id)) + tar_entry("alice_1.rtpdump", b"other") + TAR_END
    )
)
_case("metadata_twice.tar.gz", None)(
    lambda call_id: gzip_of(
        tar_of(good_members(call_id))
        + tar_entry(f"q{_SUFFIX}", _last(good_members(call_id)))
        + TAR_END
    )
)
_archive(
    "resource_forks.tar.gz",
    None,
    lambda _: {"__MACOSX/._alice_1.rtpdump": b"x", f"._p0{_SUFFIX}": b"Mac OS X"},
)


def _last(members: Members) -> bytes:
    return list(members.values())[-1]


# Gzip.
_case("gzip_concatenated.tar.gz", None)(
    lambda call_id: b"".join(
        gzip_of(entry) for entry in (tar_of(good_members(call_id)), TAR_END, b"")
    )
)
_case("archives_concatenated.tar.gz", None)(
    lambda call_id: b"".join(
        make_archive({name: data}) for name, data in good_members(call_id).items()
    )
)
_case("gzip_zeros_behind.tar.gz", None)(
    lambda call_id: make_archive(good_members(call_id)) + bytes(5_000)
)
_case("gzip_garbage_behind.tar.gz", "something follows that is no gzip")(
    lambda call_id: make_archive(good_members(call_id)) + b"garbage"
)
_case("gzip_member_broken_behind.tar.gz", "damaged gzip data")(
    lambda call_id: (
        make_archive(good_members(call_id)) + b"\x1f\x8b\x08garbage that is no gzip data at all"
    )
)
_case("gzip_without_trailer.tar.gz", "in the middle of gzip data")(
    lambda call_id: make_archive(good_members(call_id))[:-8]
)
_case("gzip_cut_in_the_trailer.tar.gz", "in the middle of gzip data")(
    lambda call_id: make_archive(good_members(call_id))[:-3]
)
_case("gzip_cut_in_a_later_dump.tar.gz", "in the middle of gzip data")(
    lambda call_id: make_archive(
        {**good_members(call_id), "x.rtpdump": random.Random(1).randbytes(300_000)}
    )[:-200_000]
)
_case("gzip_cut_before_the_metadata.tar.gz", "in the middle of gzip data", ())(
    lambda call_id: make_archive(good_members(call_id))[:2_000]
)
_case("gzip_wrong_checksum.tar.gz", "incorrect data check")(
    lambda call_id: _flip(make_archive(good_members(call_id)), -6)
)
_case("gzip_wrong_length.tar.gz", "incorrect length check")(
    lambda call_id: _flip(make_archive(good_members(call_id)), -2)
)
_case("gzip_flipped_in_a_later_dump.tar.gz", "damaged gzip data")(
    lambda call_id: _flip(
        make_archive({**good_members(call_id), "x.rtpdump": random.Random(1).randbytes(300_000)}),
        -99_000,
    )
)
_case("gzip_long_name.tar.gz", None)(
    lambda call_id: (
        b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"
        + b"n" * 300_000
        + b"\0"
        + make_archive(good_members(call_id))[10:]
    )
)
_case("bomb_behind.tar.gz", r"limits\.max_expansion_ratio")(
    lambda call_id: gzip_bomb(
        tar_of(good_members(call_id)) + tar_header(b"bomb.rtpdump", 2 * _GIB),
        2 * _GIB,
        after=TAR_END,
    )
)
_case("bomb_of_no_matter.tar.gz", r"limits\.max_expansion_ratio")(
    lambda call_id: gzip_bomb(
        tar_of(good_members(call_id)) + tar_header(b"bomb.bin", 2 * _GIB), 2 * _GIB, after=TAR_END
    )
)
_case("bomb_first.tar.gz", r"limits\.max_expansion_ratio", ())(
    lambda call_id: gzip_bomb(
        tar_header(b"bomb.rtpdump", 2 * _GIB),
        2 * _GIB,
        after=tar_of(good_members(call_id)) + TAR_END,
    )
)
_case("bomb_after_the_end.tar.gz", r"limits\.max_expansion_ratio")(
    lambda call_id: gzip_bomb(tar_of(good_members(call_id)) + TAR_END, 2 * _GIB)
)
_case("bomb_in_a_header.tar.gz", r"limits\.max_expansion_ratio")(
    lambda call_id: gzip_bomb(
        tar_of(good_members(call_id)) + tar_header(b"x", 2 * _GIB, b"x"), 2 * _GIB, fill=b"1"
    )
)
_case("bomb_of_blanks.tar.gz", r"limits\.max_metadata_member_bytes")(
    lambda call_id: gzip_bomb(
        tar_of(good_members(call_id)) + tar_header(b"z" + _SUFFIX.encode(), _GIB),
        _GIB,
        fill=b" ",
        after=TAR_END,
    )
)
_case("bomb_of_sparse_maps.tar.gz", r"limits\.max_expansion_ratio")(
    lambda call_id: gzip_bomb(
        tar_of(good_members(call_id)) + tar_header(b"x.rtpdump", 0, b"S", tail=b"\0" * 137 + b"\1"),
        2 * _GIB,
        fill=b"\1",
    )
)


def _flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 0xFF
    return bytes(changed)


# No archives.
for _name, (_data, _message) in {
    "empty": (b"", "the file is empty"),
    "random": (random.Random(1).randbytes(9_000), "begins with"),
    "zeros": (bytes(9_000), "no \\*_timing_metadata"),
    "text": (b"<html>403 Forbidden</html>" * 40, "begins with"),
    "seven_zip": (b"7z\xbc\xaf\x27\x1c" + bytes(900), r"\(7z\)"),
    "rar": (b"Rar!\x1a\x07\x01" + bytes(900), r"\(rar\)"),
    "xz": (b"\xfd7zXZ\0" + bytes(900), r"\(xz\)"),
    "bare_rtpdump": (make_rtpdump(0, []) + bytes(900), r"\(a bare rtpdump\)"),
    "gzip_of_text": (gzip_of(b"hello" * 400), "does not hold a tar"),
    "gzip_of_gzip": (gzip_of(gzip_of(random.Random(1).randbytes(9_000))), "does not hold a tar"),
    "gzip_magic": (b"\x1f\x8b", "in the middle of gzip data"),
    "zip_magic": (b"PK\x03\x04" + bytes(99), "damaged archive"),
}.items():
    _case(f"{_name}.tar.gz", _message, ())(lambda _, data=_data: data)

# Zip.
_case("tar_called_zip.zip", None)(lambda call_id: make_archive(good_members(call_id)))
_case("zip_called_tar.tar.gz", None)(lambda call_id: make_archive(good_members(call_id), "zip"))
_case("zip_with_comment.zip", None)(
    lambda call_id: make_archive(good_members(call_id), "zip")[:-2] + b"\x05\0words"
)


def _raw_zip(name: bytes, content: bytes, **fields: Any) -> Callable[[str], bytes]:
    return lambda call_id: zip_with(
        good_members(call_id), [(name, *zip_entry(name, content, **fields), None)]
    )


_case("zip_encrypted.zip", "an encrypted member")(
    _raw_zip(b"x.rtpdump", b"\1" * 50, size=40, flags=1)
)
_case("zip_method_unknown.zip", "damaged: ")(_raw_zip(b"x.rtpdump", b"\1" * 50, size=40, method=99))
_case("zip_deflate_broken.zip", "damaged: ")(_raw_zip(b"x.rtpdump", b"\xff" * 50, size=40))
_case("zip_wrong_checksum.zip", "Bad CRC-32")(
    _raw_zip(b"x.rtpdump", b"\1" * 50, size=50, method=0, crc=7)
)
_case("zip_nul_name.zip", "leaves the archive")(
    _raw_zip(b"a\0b.rtpdump", b"\1" * 50, size=50, method=0)
)
_case("zip_name_latin.zip", "no timing metadata lists")(
    _raw_zip(b"\xe9\xff.rtpdump", b"", size=0, method=0)
)
_case("zip_offset_outside.zip", "damaged: ")(
    lambda call_id: zip_with(
        good_members(call_id), [(b"x.sdp", b"", zip_entry(b"x.sdp", b"", size=9)[1], 1 << 30)]
    )
)
_case("zip_directory_names_another.zip", "differ")(
    lambda call_id: zip_with(
        good_members(call_id),
        [
            (
                b"y.rtpdump",
                zip_entry(b"x.rtpdump", b"1", size=1)[0],
                zip_entry(b"y.rtpdump", b"1", size=1)[1],
                None,
            )
        ],
    )
)
_case("zip_overlap.zip", "begins inside another one")(
    lambda call_id: _overlapping_zip(call_id, 500)
)
_case("zip_bomb.zip", r"expands to 2147483648 \(limits")(
    lambda call_id: _raw_zip(b"bomb.rtpdump", deflate_zeros(b"", 2 * _GIB), size=2 * _GIB)(call_id)
)
_case("zip_bomb_that_lies.zip", "Bad CRC-32")(
    lambda call_id: _raw_zip(b"bomb.rtpdump", deflate_zeros(b"", 2 * _GIB), size=1_000)(call_id)
)
_case("zip_twice.zip", "a second member of this name")(
    lambda call_id: zip_of([*good_members(call_id).items(), ("alice_1.rtpdump", b"other")])
)
_case("zip_without_directory.zip", "read without its directory")(
    lambda call_id: (lambda data: data[: data.index(b"PK\x01\x02")])(
        make_archive(good_members(call_id), "zip")
    )
)
_case("zip_directory_elsewhere.zip", "read without its directory")(
    lambda call_id: (lambda data: data[:-6] + struct.pack("<I", 1 << 30) + data[-2:])(
        make_archive(good_members(call_id), "zip")
    )
)


@_case("zip_symlink.zip", "a symbolic link")
def _zip_symlink(call_id: str) -> bytes:
    link = zipfile.ZipInfo("x.rtpdump")
    link.external_attr = 0o120777 << 16
    return zip_of([(link, b"/etc/passwd"), *good_members(call_id).items()])


@_case("zip64.zip", None)
def _zip64(call_id: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in good_members(call_id).items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(data)
    return out.getvalue()


def _overlapping_zip(call_id: str, count: int) -> bytes:
    content = deflate_zeros(b"", 8 * _MIB)
    local, _ = zip_entry(b"bomb0.rtpdump", content, size=8 * _MIB, crc=zlib.crc32(bytes(8 * _MIB)))
    at = len(zip_of(good_members(call_id).items()).split(b"PK\x01\x02")[0])
    entries = []
    for number in range(count):
        name = b"bomb%d.rtpdump" % number
        _, central = zip_entry(name, content, size=8 * _MIB, crc=zlib.crc32(bytes(8 * _MIB)))
        entries.append((name, b"" if number else local, central, at))
    return zip_with(good_members(call_id), entries)


# Metadata.
for _name, (_text, _message) in {
    "json_empty": (b"", "expected JSON"),
    "json_array": (b"[]", "a list at the top"),
    "json_null": (b"null", "missing or null at the top"),
    "json_text": (b'"text"', "text at the top"),
    "json_cut": (b'{"call_type": "default", ', "expected JSON"),
    "json_two": (b"{} {}", "expected JSON"),
    "json_nested_200000": (b"[" * 200_000, "unreadable JSON"),
    "json_nested_objects": (b'{"a":' * 200_000, "unreadable JSON"),
    "json_long_number": (b'{"a": ' + b"9" * 100_000 + b"}", "unreadable JSON"),
    "json_binary": (random.Random(2).randbytes(3_000), "is not UTF-8|UTF-16"),
    "json_not_utf8": (b'{"call_type": "\xff"}', "is not UTF-8"),
    "json_no_fields": (b"{}", "call_type is missing or null"),
    "json_trailing_comma": (b'{"call_type": "default",}', "expected JSON"),
    "json_single_quotes": (b"{'call_type': 'default'}", "expected JSON"),
}.items():
    _archive(f"{_name}.tar.gz", _message, lambda _, text=_text: {f"z{_SUFFIX}": text})


def _changed(name: str, message: str | None, *segments: Any, **changes: Any) -> None:
    _archive(
        f"{name}.tar.gz",
        message,
        lambda call_id: {f"z{_SUFFIX}": _metadata(call_id, *segments, **changes)},
    )


_archive(
    "json_utf16.tar.gz",
    "is UTF-16",
    lambda call_id: {f"z{_SUFFIX}": _metadata(call_id).decode().encode("utf-16")},
)
_archive(
    "json_bom.tar.gz", None, lambda call_id: {f"z{_SUFFIX}": b"\xef\xbb\xbf" + _metadata(call_id)}
)
_archive(
    "json_keys_twice.tar.gz",
    None,
    lambda call_id: {f"z{_SUFFIX}": b'{"participant_id": "alice", ' + _metadata(call_id)[1:]},
)
_changed("json_wrong_types", "participant_id is a list", participant_id=[])
_changed("json_segments_list", "segments is a list", segments=[1, 2])
_changed(
    "json_segments_of_all_kinds",
    "it was left out",
    None,
    5,
    [],
    "x",
    {},
    {"base_filename": 5},
    {"base_filename": ""},
)
_changed(
    "json_nan",
    "not in the archive",
    _segment("x", first_rtp_unix_timestamp=float("nan"), x=float("inf")),
)
_changed("json_1e400", "not in the archive", {**_segment("x"), "last_rtp_rtp_timestamp": 10**400})
_changed(
    "json_100000_segments", "more of this kind", *({"base_filename": str(n)} for n in range(60_000))
)
_changed(
    "json_more_segments_than_members",
    r"limits\.max_members",
    *({"base_filename": str(n)} for n in range(100_001)),
)

# Ids. The dump is good: it must come out under a name that is safe.
IDS = {
    "slash": "../../a/b",
    "dots": "..",
    "emoji": "👩‍🚀 Zoë",
    "bidi": "\u202egnp.evil\u2066",
    "nul": "a\0b",
    "control": "\x1b[2J\x07\r\n",
    "long": "x" * 400,
    "empty": "",
    "surrogate": "\ud800x",
    "percent": "%2e%2e%2f~2f",
    "reserved": "CON",
    "spaces": "  a  ",
}
for _name, _id in IDS.items():
    _archive(
        f"id_{_name}.tar.gz",
        None,
        lambda call_id, value=_id: {
            **guest(call_id, dump_of(plain_packets(10))),
            f"{MALLORY}{_SUFFIX}": _metadata(
                call_id, _segment(f"{MALLORY}_1"), participant_id=value, user_session_id=value
            ),
        },
    )
_changed("id_endless", "participant_id has 9000 characters", participant_id="x" * 9_000)


def _twins(name: str, *ids: str) -> None:
    def make(call_id: str) -> Members:
        found: Members = {}
        for number, value in enumerate(ids):
            base = f"twin_{number}"
            found |= {f"{base}.rtpdump": dump_of(plain_packets(10)), f"{base}.sdp": make_sdp()}
            found[f"{base}{_SUFFIX}"] = _metadata(
                call_id, _segment(base), participant_id=value, user_session_id="same"
            )
        return found

    _archive(f"{name}.tar.gz", None, make)


_twins("ids_by_case", "Zoe", "zoe", "ZOE")
_twins("ids_by_normalisation", "Zo\u00eb", "Zoe\u0308")
_twins("ids_by_cut", "x" * 399 + "a", "x" * 399 + "b")

# Names of dumps.
_changed(
    "base_path", r"\.\./\.\./etc/passwd\.rtpdump: not in the archive", _segment("../../etc/passwd")
)
_changed("base_glob", r"\*\.rtpdump: not in the archive", _segment("*"))
_changed("base_of_another", "listed again by", _segment("alice_1"))
_changed("base_prefix_of_another", "alice_\\.rtpdump: not in the archive", _segment("alice_"))
_changed("base_of_another_folder", "not in the archive", _segment("other/alice_1"))
_archive("base_that_begins_another.tar.gz", None, lambda call_id: _prefixes(call_id))


def _prefixes(call_id: str) -> Members:
    members = guest(call_id, dump_of(plain_packets(10)))
    found = {name.replace(f"{MALLORY}_1", "alice_10"): data for name, data in members.items()}
    return {**found, f"{MALLORY}{_SUFFIX}": _metadata(call_id, _segment("alice_10"))}


# Times.
for _name, (_fields, _message) in {
    "time_1970": ({"first_rtp_unix_timestamp": 0, "last_rtp_unix_timestamp": 1}, None),
    "time_far": ({"first_rtp_unix_timestamp": 10**400}, None),
    "time_year_1": ({"first_rtp_unix_timestamp": -62_135_596_800_000}, None),
    "time_text": ({"first_rtp_unix_timestamp": "2026-01-05T10:00:00Z"}, None),
    "time_reversed": ({"last_rtp_unix_timestamp": CALL_START_UNIX_MS - 86_400_000}, None),
    "time_other_day": (
        {"first_rtp_unix_timestamp": CALL_START_UNIX_MS + 30 * 86_400_000},
        "expected within 1 s",
    ),
    "time_floats": (
        {"first_rtp_unix_timestamp": float(CALL_START_UNIX_MS), "first_rtp_rtp_timestamp": 0.0},
        None,
    ),
}.items():
    _archive(
        f"{_name}.tar.gz",
        _message,
        lambda call_id, fields=_fields: guest(call_id, dump_of(plain_packets(50)), **fields),
    )


@_case("time_30_days_apart.tar.gz", r"720\.0 h from the rest of their track")
def _days_apart(call_id: str) -> bytes:
    late = CALL_START_UNIX_MS + 30 * 86_400_000
    members = guest(call_id, dump_of(plain_packets(50)))
    members[f"{MALLORY}_2.rtpdump"] = make_rtpdump(late * 1_000, plain_packets(20))
    members[f"{MALLORY}_2.sdp"] = make_sdp()
    segments = [_segment(f"{MALLORY}_1"), _segment(f"{MALLORY}_2", first_rtp_unix_timestamp=late)]
    members[f"{MALLORY}{_SUFFIX}"] = _metadata(call_id, *segments)
    return make_archive({**good_members(call_id), **members})


# Metadata that contradicts other metadata.
_archive(
    "metadata_contradicts.tar.gz",
    "call_start_time is 3600.000 s after the one in",
    lambda call_id: {
        f"y{_SUFFIX}": _metadata(call_id),
        f"z{_SUFFIX}": _metadata(call_id, call_start_time="2026-01-05T11:00:00Z"),
    },
)
_archive(
    "metadata_of_another_call.tar.gz", None, lambda _: {f"z{_SUFFIX}": _metadata("another-call")}
)
_archive(
    "dump_without_metadata.tar.gz",
    "no timing metadata lists",
    lambda _: {"stray.rtpdump": dump_of(plain_packets(9))},
)
_case("no_metadata.tar.gz", "no \\*_timing_metadata", ())(
    lambda call_id: make_archive(
        {n: d for n, d in good_members(call_id).items() if not n.endswith(_SUFFIX)}
    )
)
_case("no_metadata_readable.tar.gz", "expected JSON", ())(
    lambda call_id: make_archive(
        {n: (b"{" if n.endswith(_SUFFIX) else d) for n, d in good_members(call_id).items()}
    )
)


# Dumps.
def _dump(
    name: str, message: str | None, make: Callable[[random.Random], bytes], **changes: Any
) -> None:
    _archive(
        f"dump_{name}.tar.gz",
        message,
        lambda call_id: guest(call_id, make(random.Random(name)), **changes),
    )


def _good_dump() -> bytes:
    return dump_of(plain_packets(50))


_dump("empty", "empty, expected an rtpdump", lambda _: b"")
_dump("header_only", None, lambda _: make_rtpdump(CALL_START_UNIX_MS * 1_000, []))
_dump("bad_magic", "expected #!rtpplay", lambda _: b"#!rtpplay2.0" + _good_dump()[12:])
_dump("random", "expected #!rtpplay", lambda draw: draw.randbytes(5_000))
_dump("endless_line", "no end of line", lambda _: b"#!rtpplay1.0 " + b"x" * 5_000)
_dump("header_cut", "expected a header", lambda _: _good_dump()[:30])
_dump("record_0", "length 0", lambda _: _good_dump() + bytes(40))
_dump("record_4", "length 4", lambda _: _good_dump() + struct.pack(">HHI", 4, 4, 9) + bytes(40))
_dump(
    "record_beyond",
    None,
    lambda _: _good_dump() + struct.pack(">HHI", 60_000, 59_992, 9) + bytes(40),
)
_dump("plen_beyond", None, lambda _: _good_dump() + struct.pack(">HHI", 20, 60_000, 9) + bytes(12))
_dump("record_0_first", "length 0", lambda _: make_rtpdump(0, []) + bytes(400))
_dump(
    "random_packets",
    "no RTP or no Opus inside",
    lambda draw: dump_of((20 * n, draw.randbytes(80), False) for n in range(300)),
)
_dump(
    "random_rtcp",
    None,
    lambda draw: dump_of(
        [*plain_packets(50), *((20 * n, draw.randbytes(60), True) for n in range(300))]
    ),
)
_dump(
    "rtcp_of_many_reports",
    None,
    lambda _: dump_of(
        [
            *plain_packets(50),
            *((20 * n, make_rtcp_sender_report(cname=None) * 500, True) for n in range(50)),
        ]
    ),
)
_dump(
    "random_opus",
    "no RTP or no Opus inside",
    lambda draw: dump_of(plain_packets(256, payload=lambda n: bytes([n]) + draw.randbytes(60))),
)
_dump(
    "random_timestamps",
    "the time stamps of 200 packets break off 200 times",
    lambda draw: dump_of(plain_packets(200, rtp_timestamp=lambda _: draw.getrandbits(32))),
)
_dump(
    "random_timestamps_without_arrivals",
    "break off",
    lambda draw: dump_of(
        plain_packets(200, rtp_timestamp=lambda _: draw.getrandbits(32), arrival_ms=0)
    ),
)
_dump(
    "random_numbers",
    "break off",
    lambda draw: dump_of(plain_packets(200, sequence_number=lambda _: draw.getrandbits(16))),
)
_dump(
    "random_sources",
    "break off",
    lambda draw: dump_of(plain_packets(200, ssrc=lambda _: draw.getrandbits(32))),
)
_dump(
    "random_arrivals",
    "arrival times out of order",
    lambda draw: dump_of(plain_packets(200, arrival_ms=lambda _: draw.getrandbits(32))),
)
_dump(
    "weeks_between",
    "h from the rest",
    lambda _: dump_of(plain_packets(100, arrival_ms=lambda n: 20 * n + (n > 49) * 10**9)),
)
_dump(
    "some_arrivals_wild", "2 of 200 packets with arrival times", lambda _: dump_of(_wild_arrivals())
)
_dump("one_packet_weeks_later", None, lambda _: dump_of([*plain_packets(50), *_late_packet()]))
_dump(
    "timestamp_hours_ahead",
    None,
    lambda _: dump_of(plain_packets(50, rtp_timestamp=lambda n: 960 * n + (n > 25) * 10**9)),
)
_dump(
    "all_wrong",
    "arrival times out of order",
    lambda draw: dump_of(
        (
            draw.getrandbits(32),
            make_rtp_packet(
                draw.randbytes(40),
                sequence_number=draw.getrandbits(16),
                rtp_timestamp=draw.getrandbits(32),
                ssrc=draw.getrandbits(32),
            ),
            False,
        )
        for _ in range(300)
    ),
)
_dump("flipped", "arrival times out of order", lambda draw: _flipped(_good_dump(), draw, 60))


def _wild_arrivals() -> list[tuple[int, bytes, bool]]:
    return plain_packets(200, arrival_ms=lambda n: {20: 2**32 - 1, 100: 0}.get(n, 20 * n + 20_000))


def _late_packet() -> list[tuple[int, bytes, bool]]:
    return [
        (
            4_294_967_295,
            make_rtp_packet(_speech(700)[0], sequence_number=50, rtp_timestamp=960 * 50),
            False,
        )
    ]


def _flipped(data: bytes, draw: random.Random, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[draw.randrange(60, len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _red(draw: random.Random) -> bytes:
    return dump_of(
        plain_packets(
            200,
            payload_type=63,
            payload=lambda _: bytes([0x80 | OPUS_PAYLOAD_TYPE]) + draw.randbytes(90),
        )
    )


# Session descriptions, codecs.
_archive(
    "sdp_missing.tar.gz",
    r"\.sdp: not in the archive",
    lambda call_id: guest(call_id, _good_dump(), None),
)
for _name, (_sdp, _message) in {
    "sdp_empty": (b"", "no a=rtpmap line"),
    "sdp_binary": (random.Random(3).randbytes(900), "is not UTF-8"),
    "sdp_without_rtpmap": (b"v=0\r\nm=audio 5004 RTP/AVP 111\r\n", "no a=rtpmap line"),
    "sdp_other_payload_type": (
        make_sdp([(96, "opus/48000/2")]),
        r"payload types \[111\] in the dump",
    ),
    "sdp_pcmu": (make_sdp([(OPUS_PAYLOAD_TYPE, "PCMU/8000")]), "codec is pcmu/8000"),
    "sdp_video": (make_sdp([(OPUS_PAYLOAD_TYPE, "VP8/90000")]), "codec is vp8/90000"),
    "sdp_1mib_line": (b"a=rtpmap:111 " + b" " * _MIB, "past its limit"),
    "sdp_regex": (b"a=rtpmap:111 " + b"x" * 60_000, "no a=rtpmap line"),
}.items():
    _archive(
        f"{_name}.tar.gz", _message, lambda call_id, sdp=_sdp: guest(call_id, _good_dump(), sdp)
    )
_archive(
    "codec_unknown.tar.gz",
    "codec is audio/x-\\\\x1bevil",
    lambda call_id: guest(call_id, _good_dump(), codec="audio/x-\x1bevil"),
)
_archive(
    "codec_video.tar.gz",
    "codec is video/VP8",
    lambda call_id: guest(call_id, _good_dump(), codec="video/VP8"),
)
_archive(
    "track_type_unknown.tar.gz",
    "track_type 'X",
    lambda call_id: guest(call_id, _good_dump(), track_type="X" * 9_000),
)
_archive(
    "red_broken.tar.gz",
    "no RTP or no Opus inside",
    lambda call_id: guest(
        call_id,
        _red(random.Random(4)),
        make_sdp([(63, "red/48000/2"), (OPUS_PAYLOAD_TYPE, "opus/48000/2")]),
        codec="audio/red",
    ),
)


@functools.cache
def hostile_cases() -> Mapping[str, Hostile]:
    """Returns every case by a file name that tells what it is."""
    return {name: build(name) for name, build in _CASES.items()}


def hostile_archives() -> dict[str, bytes]:
    """Returns every archive by a file name that tells what it is: about 170, 20 MB in all."""
    return {name: case.data for name, case in hostile_cases().items()}


def case_names() -> list[str]:
    """Returns the names without building anything."""
    return list(_CASES)


def hostile_case(name: str) -> Hostile:
    """Builds one case."""
    return _CASES[name](name)
