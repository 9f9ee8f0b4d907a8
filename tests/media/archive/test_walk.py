"""The walk over archives: every kind, every limit, every way out of the archive, and damage of
every sort.
"""

from __future__ import annotations

import bz2
import gzip
import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.builders import make_archive, write_folder
from transforms.media.archive.walk import walk_archive, walk_folder
from transforms.media.archive.zip_members import _BoundedReads
from transforms.media.errors import ArchiveError
from transforms.media.settings import LimitSettings

LIMITS = LimitSettings()
MEMBERS = {
    "a_timing_metadata.json": b'{"call_id": 1}',
    "deep/er/b.rtpdump": bytes(range(256)) * 40,
    "empty.sdp": b"",
}
KINDS = ("tar.gz", "tar", "zip")


def read_all(data: bytes, limits: LimitSettings = LIMITS) -> dict[str, bytes]:
    """Returns all members of an archive, each read to its end as `unpack` does; those with a
    finding are left out.
    """
    found = {}
    for member in walk_archive(io.BytesIO(data), limits):
        if member.finding is None:
            found[member.name] = member.stream.read()
    return found


def findings_of(data: bytes, limits: LimitSettings = LIMITS) -> list[str]:
    """Returns what is wrong with the members of an archive that can be walked to its end."""
    return [
        member.finding.message
        for member in walk_archive(io.BytesIO(data), limits)
        if member.finding is not None
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_members_come_in_order_with_name_size_and_bytes(kind: str) -> None:
    found = []
    for member in walk_archive(io.BytesIO(make_archive(MEMBERS, kind)), LIMITS):
        found.append((member.name, member.size_bytes, member.stream.read()))
    assert found == [(name, len(data), data) for name, data in MEMBERS.items()]


@pytest.mark.parametrize("kind", KINDS)
def test_members_may_be_left_unread(kind: str) -> None:
    names = [
        member.name for member in walk_archive(io.BytesIO(make_archive(MEMBERS, kind)), LIMITS)
    ]
    assert names == list(MEMBERS)


def test_folder_gives_its_files(tmp_path: Path) -> None:
    listing = write_folder(tmp_path, MEMBERS)
    found = {}
    for member in walk_folder(listing, lambda name: (tmp_path / name).open("rb"), LIMITS):
        found[member.name] = (member.size_bytes, member.stream.read())
    assert found == {name: (len(data), data) for name, data in MEMBERS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_archive_without_members_is_empty(kind: str) -> None:
    assert read_all(make_archive({}, kind)) == {}


@pytest.mark.parametrize(
    ("name", "plain"),
    [("./a.sdp", "a.sdp"), ("x/./b//c.sdp", "x/b/c.sdp"), ("x\\c.sdp", "x/c.sdp")],
    ids=["dot", "inner", "back"],
)
def test_spellings_of_a_path_are_made_one(name: str, plain: str) -> None:
    assert list(read_all(make_archive({name: b"x"}))) == [plain]


def make_tar(*infos: tarfile.TarInfo, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


def make_info(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"S", "a sparse file"),
        (b"V", "a volume label"),
        (b"\x01", "a member of type b'\\x01'"),
    ],
    ids=[
        "symlink",
        "hard_link",
        "character_device",
        "block_device",
        "fifo",
        "old_sparse",
        "label",
        "unknown",
    ],
)
def test_what_is_no_regular_file_is_told_and_not_read(kind: bytes, named: str) -> None:
    data = make_tar(make_info("x", kind, target="/etc/passwd"), make_info("b.sdp", size=3))
    assert read_all(data) == {"b.sdp": bytes(3)}
    assert findings_of(data) == [f"member 'x' is {named}, expected a file"]
    first = next(walk_archive(io.BytesIO(data), LIMITS))
    assert (first.name, first.stream.read(), first.is_suspect) == ("x", b"", False)


def test_folders_are_no_members() -> None:
    data = make_tar(make_info("x", tarfile.DIRTYPE), make_info("b.sdp", size=3))
    assert [member.name for member in walk_archive(io.BytesIO(data), LIMITS)] == ["b.sdp"]


def test_folder_entries_of_a_zip_are_no_members() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("deep/", b"")
        archive.writestr("deep/b.sdp", b"x")
    assert read_all(out.getvalue()) == {"deep/b.sdp": b"x"}


@pytest.mark.parametrize("name", ["__MACOSX/._a.rtpdump", "._a.rtpdump", "deep/._a.rtpdump"])
def test_resource_forks_are_left_out(name: str) -> None:
    assert list(read_all(make_archive({name: b"x", "a.rtpdump": b"y"}))) == ["a.rtpdump"]


UNSAFE = [
    "../a.sdp",
    "x/../../a.sdp",
    "/etc/passwd",
    "\\a.sdp",
    "x\\..\\..\\a.sdp",
    "C:\\a.sdp",
    "c:a.sdp",
    "z:/x/a.sdp",
    "..",
    "x/..",
]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("kind", KINDS)
def test_path_out_of_the_archive_is_told_and_its_neighbours_are_read(kind: str, name: str) -> None:
    data = make_archive({"a.sdp": b"1", name: b"evil", "b.sdp": b"2"}, kind)
    assert read_all(data) == {"a.sdp": b"1", "b.sdp": b"2"}
    (finding,) = findings_of(data)
    assert "leaves the archive, expected a relative path inside it" in finding
    (unsafe,) = [member for member in walk_archive(io.BytesIO(data), LIMITS) if member.finding]
    assert (unsafe.stream.read(), unsafe.is_suspect) == (b"", True)


def test_path_out_of_a_folder_is_told_and_never_opened() -> None:
    def refuse(name: str) -> io.BytesIO:
        raise AssertionError(f"{name} was opened")

    (member,) = walk_folder([("../a.sdp", 1)], refuse, LIMITS)
    assert member.finding is not None
    assert member.stream.read() == b""


@pytest.mark.parametrize(
    "name",
    [
        "a..b.sdp",
        "...",
        "x/a:b.sdp",
        "ünïcode 🎧/ä.sdp",
        "default:standup_timing_metadata.json",
        "a1e5f21f716affb7:TRACK_TYPE_AUDIO:eO.rtpdump",
        "default:standup/c:a.sdp",
        ":a.sdp",
        "1:a.sdp",
        "ä:a.sdp",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_but_safe_paths_are_members(kind: str, name: str) -> None:
    assert list(read_all(make_archive({name: b"x"}, kind))) == [name]
    (member,) = walk_folder([(name, 1)], lambda _: io.BytesIO(b"x"), LIMITS)
    assert (member.name, member.finding, member.stream.read()) == (name, None, b"x")


@pytest.mark.parametrize("kind", KINDS)
def test_one_member_over_the_limit_raises(kind: str) -> None:
    limits = LimitSettings(max_members=2)
    assert len(read_all(make_archive({"a": b"", "b": b""}, kind), limits)) == 2
    with pytest.raises(ArchiveError, match=r"more than 2 members \(limits\.max_members\)"):
        read_all(make_archive({"a": b"", "b": b"", "c": b""}, kind), limits)


@pytest.mark.parametrize("kind", KINDS)
def test_one_byte_over_the_limit_raises(kind: str) -> None:
    members = {"a": bytes(4), "b": bytes(30_000)}
    size = (
        30_004 if kind == "zip" else len(make_archive(members, "tar"))
    )  # a tar counts with its headers
    assert len(read_all(make_archive(members, kind), LimitSettings(max_archive_bytes=size))) == 2
    limits = LimitSettings(max_archive_bytes=30_003)
    with pytest.raises(
        ArchiveError, match=r"expands past 30003 bytes \(limits\.max_archive_bytes\)"
    ):
        read_all(make_archive(members, kind), limits)


def test_sparse_member_costs_nothing() -> None:
    info = make_info("huge.rtpdump", size=0)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(1 << 50),
    }
    data = make_tar(info, tar_format=tarfile.PAX_FORMAT)
    assert read_all(data) == {}
    assert findings_of(data) == ["member 'huge.rtpdump' is a sparse file, expected a file"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"the file is empty, expected tar, gzipped tar or zip"),
        (b"hello", r"begins with b'hello', expected tar, gzipped tar or zip"),
        (bytes(100), r"begins with .*, expected tar, gzipped tar or zip"),
        (b"\xff" * 1_024, r"begins with .*, expected tar, gzipped tar or zip"),
        (
            gzip.compress(b"hello" * 200),
            r"gzip data that does not hold a tar archive, expected \.tar\.gz",
        ),
        (gzip.compress(b""), r"gzip data that does not hold a tar archive"),
        (b"\x1f\x8b" + bytes(100), r"damaged archive"),
        (b"PK\x03\x04" + bytes(100), r"damaged archive"),
    ],
    ids=[
        "empty",
        "text",
        "zeros",
        "noise",
        "gzip_of_text",
        "gzip_of_nothing",
        "gzip_magic_only",
        "zip_magic_only",
    ],
)
def test_what_is_no_archive_raises(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        read_all(data)


@pytest.mark.parametrize("kind", ["tar.gz", "tar"])
def test_truncated_archive_gives_what_came_whole(kind: str) -> None:
    noise = random.Random(1).randbytes(20_000)
    data = make_archive({"a.sdp": b"x" * 10, "b.rtpdump": noise}, kind)
    walk = walk_archive(io.BytesIO(data[: len(data) // 2]), LIMITS)
    first = next(walk)
    assert (first.name, first.stream.read()) == ("a.sdp", b"x" * 10)
    second = next(walk)
    with pytest.raises(ArchiveError, match=r"^b\.rtpdump: damaged: "):
        second.stream.read()


def test_truncated_zip_raises() -> None:
    data = make_archive(MEMBERS, "zip")
    with pytest.raises(ArchiveError, match=r"damaged archive: File is not a zip file"):
        read_all(data[:-30])


def test_wrong_checksum_of_a_zip_member_raises() -> None:
    data = bytearray(make_archive({"b.rtpdump": bytes(1_000)}, "zip"))
    data[data.index(b"b.rtpdump") - 16] ^= 1  # local header
    data[data.rindex(b"b.rtpdump") - 30] ^= 1  # CRC in the central directory
    with pytest.raises(ArchiveError, match=r"b\.rtpdump: damaged: Bad CRC-32"):
        read_all(bytes(data))


def patched_zip(name: str, offset: int, value: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Returns a zip of one member with bytes of its central directory entry overwritten."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, bytes(1_000))
    data = bytearray(out.getvalue())
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        patched_zip("b.rtpdump", 8, b"\x01\x00"),
        patched_zip("b.rtpdump", 10, b"\x63\x00"),
        patched_zip("b.rtpdump", 6, b"\xff\x00"),
        patched_zip("b.rtpdump", 42, b"\xff\xff\xff\x7f"),
        patched_zip("b.rtpdump", 46, b"\0"),
        patched_zip("ééé.sdp", 46, b"\xff"),
        patched_zip("b.rtpdump", 28, b"\x00\x00"),
    ],
    ids=[
        "encrypted",
        "unknown_method",
        "newer_version",
        "offset_outside",
        "nul_name",
        "name_not_utf8",
        "empty_name",
    ],
)
def test_zip_that_lies_about_a_member_raises_or_tells(data: bytes) -> None:
    try:
        assert read_all(data) == {}
        assert findings_of(data)
    except ArchiveError:
        pass


def test_directory_of_a_zip_is_read_up_to_a_size_only() -> None:
    reads = _BoundedReads(io.BytesIO(bytes(5_000)), 1_000)
    assert len(reads.read(1_000)) == 1_000
    assert len(reads.read()) == 1_000
    with pytest.raises(
        zipfile.BadZipFile,
        match=r"a directory of 1001 bytes, expected at most 1000 \(limits\.max_members\)",
    ):
        reads.read(1_001)


def test_zip_directory_outside_the_file_raises_archive_error() -> None:
    data = bytearray(make_archive({"b.rtpdump": bytes(1_000)}, "zip"))
    at = data.rindex(b"PK\x05\x06")
    data[at + 12 : at + 16] = struct.pack("<I", 1 << 30)
    with pytest.raises(ArchiveError):
        read_all(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_other_zip_methods_are_read_and_their_damage_is_an_archive_error(method: int) -> None:
    out = io.BytesIO()
    content = bz2.compress(bytes(range(256)) * 10)
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("b.rtpdump", content)
    data = bytearray(out.getvalue())
    assert read_all(bytes(data)) == {"b.rtpdump": content}
    for at in range(60, 80):
        data[at] ^= 0x55
    with pytest.raises(ArchiveError):
        read_all(bytes(data))


@pytest.mark.parametrize("kind", [*KINDS, "zip_bzip2", "zip_lzma"])
def test_any_damage_raises_nothing_but_archive_error(kind: str) -> None:
    if kind in KINDS:
        whole = make_archive(MEMBERS, kind)
    else:
        out = io.BytesIO()
        with zipfile.ZipFile(
            out, "w", zipfile.ZIP_BZIP2 if kind == "zip_bzip2" else zipfile.ZIP_LZMA
        ) as archive:
            for name, content in MEMBERS.items():
                archive.writestr(name, content)
        whole = out.getvalue()
    draw = random.Random(kind)
    errors = 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.choice([0, 255, draw.randrange(256)])
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        try:
            read_all(bytes(data))
            errors += bool(findings_of(bytes(data)))
        except ArchiveError:
            errors += 1
    assert errors > 50


def test_bytes_in_a_tar_name_that_are_not_utf8_become_text_that_is() -> None:
    data = make_tar(make_info("a\udcff.rtpdump", size=1))
    (name,) = read_all(data)
    assert name.startswith("a")
    assert name.encode("utf-8")
