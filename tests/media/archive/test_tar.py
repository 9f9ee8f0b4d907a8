"""The tar reader: what the standard library writes it reads alike, and what nobody should write
costs nothing.
"""

from __future__ import annotations

import io
import random
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile.raw_tar import TAR_END, gnu_long_name, pax_entry, tar_entry, tar_header
from transforms.media.archive.tar import CutOffError, Entry, TarReader, looks_like_tar, parse_header


def read_all(data: bytes) -> list[tuple[str, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [
        (entry.name, reader.read(1 << 30))
        for entry in reader.entries()
        if entry.found_instead is None and not entry.is_folder
    ]


def entries(data: bytes) -> list[Entry]:
    return list(TarReader(io.BytesIO(data)).entries())


names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=180
).filter(lambda name: not name.endswith("/") and len(name.encode()) < 250)


@given(
    st.lists(st.tuples(names, st.binary(max_size=1_200)), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_the_library_writes_is_read_alike(
    members: list[tuple[str, bytes]], tar_format: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        expected = [(info.name, tar.extractfile(info).read()) for info in tar if info.isreg()]  # type: ignore[union-attr]
    assert read_all(out.getvalue()) == expected


def test_names_by_prefix_gnu_and_pax() -> None:
    prefixed = tar_header(b"name", 1, tail=b"deep/folder".ljust(155, b"\0")) + b"p".ljust(
        512, b"\0"
    )
    data = (
        prefixed
        + gnu_long_name(b"g" * 300)
        + tar_entry("x", b"g")
        + pax_entry({b"path": b"p" * 300})
        + tar_entry("y", b"x")
    )
    assert read_all(data + TAR_END) == [
        ("deep/folder/name", b"p"),
        ("g" * 300, b"g"),
        ("p" * 300, b"x"),
    ]


def test_extended_headers_are_of_the_next_member_only() -> None:
    data = (
        gnu_long_name(b"long")
        + tar_entry("a", b"1")
        + tar_entry("b", b"2")
        + pax_entry({b"size": b"1"})
        + tar_entry("c", b"3")
    )
    assert read_all(data + tar_entry("d", b"44")) == [
        ("long", b"1"),
        ("b", b"2"),
        ("c", b"3"),
        ("d", b"44"),
    ]


def test_pax_size_counts() -> None:
    data = (
        pax_entry({b"size": b"600"})
        + tar_header(b"a", 0)
        + b"x" * 600
        + bytes(424)
        + tar_entry("b", b"2")
        + TAR_END
    )
    assert read_all(data) == [("a", b"x" * 600), ("b", b"2")]


@pytest.mark.parametrize("take", [1, 7, 512, 10_000])
def test_content_is_given_in_any_portions(take: int) -> None:
    content = random.Random(1).randbytes(3_000)
    reader = TarReader(io.BytesIO(tar_entry("a", content) + tar_entry("b", b"z") + TAR_END))
    found = reader.entries()
    next(found)
    parts = []
    while data := reader.read(take):
        parts.append(data)
    assert b"".join(parts) == content
    assert next(found).name == "b"
    assert reader.read(9) == b"z"


def test_head_taken_before_is_part_of_it() -> None:
    data = tar_entry("a", b"1") + TAR_END
    reader = TarReader(io.BytesIO(data[512:]), data[:512])
    assert [entry.name for entry in reader.entries()] == ["a"]
    assert reader.has_end


def test_end_mark_is_noticed_when_it_is_missing() -> None:
    reader = TarReader(io.BytesIO(tar_entry("a", b"1")))
    assert len(list(reader.entries())) == 1
    assert not reader.has_end


@pytest.mark.parametrize("size", [100, 600, 1_100])
def test_content_that_is_cut_off_raises_after_what_is_there(size: int) -> None:
    data = (tar_entry("a", b"x" * 2_000))[: 512 + size]
    reader = TarReader(io.BytesIO(data))
    found = reader.entries()
    next(found)
    assert reader.read(5_000) == b"x" * size
    with pytest.raises(
        CutOffError, match=rf"ends at byte {512 + size} of the tar, {2_000 - size} bytes short"
    ):
        reader.read(1)
    with pytest.raises(CutOffError):
        next(found)


def test_cut_off_in_an_extended_header_raises() -> None:
    with pytest.raises(CutOffError, match=r"in an extended header of 300 bytes"):
        entries((tar_entry("x", b"n" * 300, b"L"))[:700])
    with pytest.raises(CutOffError, match=r"in the map of a sparse file"):
        entries(tar_header(b"x", 0, b"S", tail=b"\0" * 137 + b"\1"))


def test_walk_goes_on_behind_a_damaged_header() -> None:
    lost = b"\xff" + tar_entry("lost", b"?" * 700)[1:]
    found = entries(tar_entry("a") + lost + tar_entry("b") + TAR_END)
    assert [(entry.name, entry.found_instead) for entry in found] == [
        ("a", None),
        ("", "1536 bytes at byte 512 of the tar that are no header and no content"),
        ("b", None),
    ]


def test_damage_in_many_places_needs_no_depth() -> None:
    data = (tar_entry("a") + b"\xff" * 512) * 3_000 + TAR_END
    assert len(entries(data)) == 6_000


@pytest.mark.parametrize(
    "records",
    [b"8 path=x\n", b"x", b"5 a=\n", b"8 pathx\n", b"99999999999 a=b\n", b" 5 a=\n", b"1 \n"],
)
def test_damaged_pax_is_told_with_the_member(records: bytes) -> None:
    (entry,) = entries(pax_entry(records) + tar_entry("a") + TAR_END)
    assert (entry.name, entry.found_instead) == (
        "a",
        "a member with a damaged PAX header",
    ) or records == b"5 a=\n"


def test_header_of_a_size_below_zero_is_none() -> None:
    assert parse_header(tar_header(b"a", 5)) is not None
    assert parse_header(tar_header(b"a", 1 << 40, base256=True)).size == 1 << 40  # type: ignore[union-attr]
    assert parse_header(tar_header(b"a", -1, base256=True)) is None
    assert parse_header(b"\xff" * 512) is None
    assert parse_header(tar_header(b"a")[:500]) is None


def test_tar_is_told_by_its_first_block() -> None:
    assert looks_like_tar(tar_header(b"a"))
    assert looks_like_tar(b"\xff" + tar_header(b"a")[1:])  # damaged, but it was one
    assert looks_like_tar(bytes(1_024))
    assert not looks_like_tar(bytes(100))
    assert not looks_like_tar(b"text" * 200)
