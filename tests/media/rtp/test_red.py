"""RED blocks, many packets at once: every length that can lie, and the same as reading them one by
one.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import make_red_payload
from tests.support.media import DATA
from transforms.media.rtp.fates import no_fates
from transforms.media.rtp.red import BROKEN_BYTES, unwrap_red, without_received
from transforms.media.rtp.streams import Stream
from transforms.media.units import Ints

EVERY_TYPE = np.ones(128, dtype=bool)
Blocks = list[tuple[int, bytes]]
"""Timestamp offset and bytes of each block, oldest first, the primary last."""


def make_stream(payloads: list[bytes], rtp_timestamp: int = 1_000_000) -> tuple[Stream, bytes]:
    """Returns packets with these payloads, 20 ms apart, and the dump they lie in, with bytes
    between.
    """
    dump, offsets = b"", []
    for payload in payloads:
        dump += b"\xff" * 5
        offsets.append(len(dump))
        dump += payload
    number = np.arange(len(payloads))
    return (
        Stream(
            sequence_number=number.astype(np.uint16),
            rtp_timestamp=(rtp_timestamp + 960 * number).astype(np.uint32),
            ssrc=np.full(len(payloads), 7, dtype=np.uint32),
            payload_type=np.full(len(payloads), 63, dtype=np.uint8),
            arrival_offset_ms=20 * number,
            payload_offset=np.array(offsets, dtype=np.int64),
            payload_bytes=np.array([len(payload) for payload in payloads], dtype=np.int32),
            fates=no_fates(len(payloads)),
            sender_reports=(),
        ),
        dump,
    )


def unwrap(
    stream: Stream, dump: bytes, is_opus_type: np.ndarray = EVERY_TYPE
) -> tuple[Ints, list[bool]]:
    """Returns the redundant blocks, and which packets are audio still."""
    is_audio = np.ones(len(stream.ssrc), dtype=bool)
    every = np.arange(len(stream.ssrc))
    copies = unwrap_red(stream, every, is_audio, is_opus_type, np.frombuffer(dump, dtype=np.uint8))
    return copies, is_audio.tolist()


def blocks_of(*payloads: bytes) -> list[Blocks | None]:
    """Returns the blocks of each payload that have bytes, None where it is broken."""
    stream, dump = make_stream(list(payloads))
    copies, _ = unwrap(stream, dump)
    found: list[Blocks | None] = []
    for number, (at, size) in enumerate(
        zip(stream.payload_offset.tolist(), stream.payload_bytes.tolist(), strict=True)
    ):
        if size == BROKEN_BYTES:
            assert not (copies[:, 3] == number).any()
            found.append(None)
            continue
        mine = copies[copies[:, 3] == number].tolist()
        older = [
            (1_000_000 + 960 * number - ticks, dump[start : start + length])
            for ticks, start, length, _, _ in mine
        ]
        found.append([*older, (0, dump[at : at + size])])
    return found


def read_one_by_one(payload: bytes) -> Blocks | None:
    """Returns the blocks of a payload by the letter of RFC 2198 s3."""
    headers, position = [], 0
    while position < len(payload) and payload[position] & 0x80:
        rest = int.from_bytes(payload[position + 1 : position + 4], "big")
        headers.append((rest >> 10, rest & 0x3FF))
        position += 4
    position += 1
    if (
        len(headers) > 16
        or position + sum(size for _, size in headers) > len(payload)
        or len(payload) > 5_100
    ):
        return None
    blocks = []
    for offset, size in headers:
        blocks.append((offset, payload[position : position + size]))
        position += size
    return [*((offset, data) for offset, data in blocks if data), (0, payload[position:])]


def test_blocks_come_oldest_first_and_primary_last() -> None:
    blocks = [(1_920, b"older"), (960, b"old"), (0, b"primary")]
    assert blocks_of(make_red_payload(b"primary", blocks[:2]), make_red_payload(b"next")) == [
        blocks,
        [(0, b"next")],
    ]


def test_golden_payload_is_read() -> None:
    golden = (DATA / "red_largest_offset.bin").read_bytes()
    assert blocks_of(golden) == [[(16_383, bytes(1_023)), (0, b"\xf8\xff\xfe")]]
    assert make_red_payload(b"\xf8\xff\xfe", [(16_383, bytes(1_023))]) == golden


def test_empty_blocks_are_no_copies() -> None:
    assert blocks_of(make_red_payload(b"", [(960, b"")])) == [[(0, b"")]]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xef\x00\x00",
        b"\xef\x00\x00\x00",
        b"\xef\x00\x00\x00\xef\x00",
        make_red_payload(b"", [(960, b"12345")])[:-1],
        make_red_payload(b"primary", [(1, b"")] * 17),
        make_red_payload(bytes(5_100)),
    ],
    ids=[
        "empty",
        "header_cut",
        "no_primary_header",
        "second_header_cut",
        "block_cut",
        "too_many_blocks",
        "too_long",
    ],
)
def test_broken_payload_is_marked_and_costs_no_other(payload: bytes) -> None:
    good = make_red_payload(b"primary", [(960, b"old")])
    assert blocks_of(good, payload, good) == [
        [(960, b"old"), (0, b"primary")],
        None,
        [(960, b"old"), (0, b"primary")],
    ]


def test_most_blocks_that_are_read() -> None:
    older = [(960 * (16 - n), b"x") for n in range(16)]
    assert blocks_of(make_red_payload(b"primary", older)) == [[*older, (0, b"primary")]]


@given(
    st.lists(
        st.binary(max_size=60)
        | st.lists(st.binary(min_size=4, max_size=4), max_size=18).map(b"\xef".join),
        max_size=6,
    )
)
def test_any_bytes_are_read_as_one_by_one(payloads: list[bytes]) -> None:
    assert blocks_of(*payloads) == [read_one_by_one(payload) for payload in payloads]


@given(
    st.binary(max_size=40),
    st.lists(st.tuples(st.integers(0, 16_383), st.binary(min_size=1, max_size=40)), max_size=5),
)
def test_reading_inverts_building(primary: bytes, older: Blocks) -> None:
    assert blocks_of(make_red_payload(primary, older)) == [[*older, (0, primary)]]


def test_blocks_of_other_types_are_left_alone() -> None:
    other = make_red_payload(b"primary", [(960, b"old")], payload_type=0)
    stream, dump = make_stream([other, make_red_payload(b"primary", [(960, b"old")])])
    is_opus = np.zeros(128, dtype=bool)
    is_opus[111] = True
    copies, is_audio = unwrap(stream, dump, is_opus)
    assert copies[:, 3].tolist() == [1]
    assert is_audio == [False, True]


def test_timestamps_of_copies_wrap() -> None:
    stream, dump = make_stream([make_red_payload(b"p", [(960, b"old")])], rtp_timestamp=100)
    copies, _ = unwrap(stream, dump)
    assert copies[0, 0] == (1 << 32) - 860


@pytest.mark.parametrize("back", [1, 16])
def test_copies_of_what_came_are_not_kept(back: int) -> None:
    stream, dump = make_stream([make_red_payload(b"p", [(960 * back, b"old")]) for _ in range(40)])
    copies, _ = unwrap(stream, dump)
    came = np.ones(40, dtype=bool)
    came[20] = False  # no audio: as good as lost
    assert without_received(copies, stream, came)[:, 3].tolist() == [*range(back), 20 + back]


@pytest.mark.parametrize("field", ["ssrc", "sequence_number"])
def test_copy_of_what_another_source_sent_or_another_count_is_kept(field: str) -> None:
    stream, dump = make_stream([make_red_payload(b"p", [(960, b"old")]) for _ in range(4)])
    copies, _ = unwrap(stream, dump)
    getattr(stream, field)[2] = 8_000
    assert without_received(copies, stream, np.ones(4, dtype=bool))[:, 3].tolist() == [0, 2, 3]


def test_copies_are_compared_across_a_wrap_of_the_numbers() -> None:
    stream, dump = make_stream([make_red_payload(b"p", [(960, b"old")]) for _ in range(4)])
    copies, _ = unwrap(stream, dump)
    stream.sequence_number[:] = [65_534, 65_535, 0, 1]
    assert without_received(copies, stream, np.ones(4, dtype=bool))[:, 3].tolist() == [0]
