"""Gzip to the last byte before any damage."""

from __future__ import annotations

import gzip
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.media.archive.gunzip import Gunzip

DATA = random.Random(1).randbytes(300_000) + b"x" * 900_000


def read(data: bytes) -> tuple[bytes, Gunzip]:
    gunzip = Gunzip(io.BytesIO(data), lambda expanded, compressed: None)
    return io.BufferedReader(gunzip, 1 << 16).read(), gunzip


@pytest.mark.parametrize("level", [0, 1, 9])
def test_whole_data_is_read(level: int) -> None:
    found, gunzip = read(gzip.compress(DATA, level))
    assert found == DATA
    assert (gunzip.damage, gunzip.foreign_at) == (None, None)


def test_concatenated_members_and_zeros_are_one_stream() -> None:
    found, gunzip = read(
        gzip.compress(b"a" * 9)
        + bytes(70_000)
        + gzip.compress(b"")
        + gzip.compress(b"b")
        + bytes(3)
    )
    assert found == b"a" * 9 + b"b"
    assert (gunzip.damage, gunzip.foreign_at) == (None, None)


@pytest.mark.parametrize(
    "behind", [b"x", b"\x1f", b"garbage" * 9_000], ids=["byte", "half_a_magic", "much"]
)
def test_what_follows_is_told_with_its_place(behind: bytes) -> None:
    whole = gzip.compress(DATA)
    found, gunzip = read(whole + bytes(9) + behind)
    assert found == DATA
    assert gunzip.foreign_at == len(whole) + 9
    assert gunzip.damage is None


@given(st.integers(1, 2_000))
def test_cut_anywhere_gives_all_that_came(missing: int) -> None:
    data = random.Random(2).randbytes(1_990)
    whole = gzip.compress(data, 0)  # stored: each byte of it is a byte of the data
    found, gunzip = read(whole[:-missing])
    assert data.startswith(found)
    assert len(found) == max(0, min(len(data), len(whole) - missing - 15))
    assert gunzip.damage == f"ends at byte {len(whole) - missing} in the middle of gzip data"


@pytest.mark.parametrize(
    ("at", "named"), [(-8, "incorrect data check"), (-1, "incorrect length check")]
)
def test_wrong_trailer_is_damage_behind_all_the_data(at: int, named: str) -> None:
    data = bytearray(gzip.compress(DATA))
    data[at] ^= 0xFF
    found, gunzip = read(bytes(data))
    assert DATA.startswith(found)
    assert len(found) >= len(DATA) - 1  # zlib holds the last byte back
    assert named in (gunzip.damage or "")


def test_damage_in_the_middle_gives_what_came_before() -> None:
    packed = gzip.compress(DATA)
    found, gunzip = read(packed[:200_000] + b"\xff" * 40 + packed[200_040:])
    assert "damaged gzip data before byte" in (gunzip.damage or "")
    assert len(found) >= 150_000
    assert found[:190_000] == DATA[: min(len(found), 190_000)]


def test_bytes_are_counted_and_counting_may_end_it() -> None:
    counted = []

    def count(expanded: int, compressed: int) -> None:
        counted.append((expanded, compressed))
        if len(counted) == 3:
            raise ValueError("that is enough")

    packed = gzip.compress(DATA)
    stream = io.BufferedReader(Gunzip(io.BytesIO(packed), count), 1 << 16)
    with pytest.raises(ValueError, match="that is enough"):
        stream.read(5 << 18)
    assert len(counted) == 3
    assert counted == sorted(counted)
    assert all(compressed <= len(packed) for _, compressed in counted)


@given(st.binary(max_size=200))
def test_any_bytes_end_quietly(data: bytes) -> None:
    for start in (b"", b"\x1f\x8b\x08\0"):
        found, gunzip = read(start + data)
        assert gunzip.damage is not None or gunzip.foreign_at is not None or found is not None
