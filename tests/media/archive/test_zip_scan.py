"""A zip without its directory: members by their own headers."""

from __future__ import annotations

import io
import zipfile
import zlib

import pytest

from tests.support.builders import make_archive
from tests.support.hostile.raw_zip import zip_entry
from transforms.media.archive.zip_scan import DamageError, scan_zip

MEMBERS = {
    "a.sdp": b"1" * 500,
    "deep/b.rtpdump": bytes(range(256)) * 400,
    "empty.sdp": b"",
    "é.txt": b"last",
}


def without_directory(data: bytes) -> bytes:
    return data[: data.index(b"PK\x01\x02")]


def read_all(data: bytes) -> dict[str, bytes | str]:
    """Returns what each member holds, or why it cannot be read."""
    found: dict[str, bytes | str] = {}
    for member in scan_zip(io.BytesIO(data)):
        if member.found_instead:
            found[member.name] = member.found_instead
            continue
        parts = []
        try:
            while part := member.read(1_000):
                parts.append(part)
            found[member.name] = b"".join(parts)
        except DamageError as error:
            found[member.name] = str(error)
    return found


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_found_by_their_headers(method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.mkdir("deep")
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    assert read_all(without_directory(out.getvalue())) == MEMBERS


def test_members_without_sizes_and_with_zip64_sizes_are_found() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    for out in (Pipe(), io.BytesIO()):
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in MEMBERS.items():
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as member:
                    member.write(data)
        assert read_all(without_directory(out.getvalue())) == MEMBERS


def test_unread_members_are_passed_over() -> None:
    assert [member.name for member in scan_zip(io.BytesIO(make_archive(MEMBERS, "zip")))] == list(
        MEMBERS
    )


def test_cut_off_member_says_so_after_what_came() -> None:
    data = make_archive({"a": b"whole", "b": bytes(range(256)) * 400}, "zip")
    cut = data[: data.index(b"PK\x01\x02") - 50]
    found = read_all(cut)
    assert found["a"] == b"whole"
    assert found["b"] == f"ends at byte {len(cut)} of the zip, in the middle of it"


def test_size_that_lies_hides_nobody() -> None:
    lying, _ = zip_entry(b"x", b"1234", size=4, method=0)
    lying = lying[:18] + (1 << 30).to_bytes(4, "little") + lying[22:]
    assert set(read_all(lying + make_archive(MEMBERS, "zip"))) == {"x", *MEMBERS}


def test_wrong_checksum_encryption_and_methods_are_told() -> None:
    packed = zlib.compress(b"x" * 50, wbits=-15)
    entries = [
        zip_entry(b"crc", packed, size=50, crc=7),
        zip_entry(b"secret", packed, size=50, flags=1),
        zip_entry(b"bzip", packed, size=50, method=12),
        zip_entry(b"broken", b"\xff" * 20, size=50),
    ]
    found = read_all(b"".join(local for local, _ in entries))
    assert found["crc"] == "its checksum is wrong"
    assert found["secret"] == "an encrypted member"
    assert found["bzip"] == "a member of method 12 in a zip without a directory"
    assert "invalid" in str(found["broken"])
