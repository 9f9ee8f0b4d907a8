"""What is fuzzed: one function of bytes per parser, which may raise its own error only.

No test library is imported here: the fuzzer instruments what it imports. Limits are small, so that
an input which gets round one of them shows in time or memory at once.
"""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from transforms.media.archive.read_members import ArchiveInput
from transforms.media.archive.walk import walk_archive
from transforms.media.errors import RecordingError, RtpdumpError, SdpError, TimingMetadataError
from transforms.media.job import JobHost
from transforms.media.opus.packet import (
    MAX_PACKET_SAMPLES,
    carries_fec,
    filler_packets,
    has_silk,
    is_valid_packet,
    packet_samples,
)
from transforms.media.rtp.fates import Tally, no_fates
from transforms.media.rtp.ingest import ingest_segment
from transforms.media.rtp.packets import parse_rtp_window
from transforms.media.rtp.plausibility import mend_arrivals
from transforms.media.rtp.red import BROKEN_BYTES, unwrap_red
from transforms.media.rtp.rtpdump import read_rtpdump
from transforms.media.rtp.sdp import RtpMap, parse_sdp
from transforms.media.rtp.streams import Stream
from transforms.media.rtp.timing_metadata import SegmentTiming, parse_timing_metadata
from transforms.media.settings import LimitSettings
from transforms.media.unpack_archive import unpack_archive

LIMITS = LimitSettings(
    max_archive_bytes=4 << 20,
    max_members=500,
    max_metadata_bytes=1 << 18,
    max_metadata_member_bytes=1 << 17,
    max_sessions=50,
    max_segment_packets=5_000,
    max_archive_seconds=20,
)
_DUMP_HEAD = b"#!rtpplay1.0 127.0.0.1/5004\n" + struct.pack(
    ">IIIHH", 1_767_607_200, 0, 0x7F00_0001, 5004, 0
)
_MAPS = {
    number: RtpMap(payload_type=number, encoding=encoding, clock_rate_hz=48_000, channels=2)
    for number, encoding in ((63, "red"), (111, "opus"))
}
_TIMING = SegmentTiming(
    base_filename="a",
    codec="audio/opus",
    track_id="t",
    track_type="TRACK_TYPE_AUDIO",
    first_rtp_timestamp=None,
    last_rtp_timestamp=None,
    first_rtp_unix_ms=1_767_607_200_000,
    last_rtp_unix_ms=None,
)


def archive(data: bytes) -> None:
    """Walks an archive of any kind and reads every member."""
    read_bytes = 0
    try:
        for member in walk_archive(io.BytesIO(data), LIMITS):
            assert member.name or member.finding is not None
            _assert_safe(member.name, has_finding=member.finding is not None)
            read_bytes += len(member.stream.read(LIMITS.max_archive_bytes))
    except RecordingError as error:
        _assert_tells(error)
    assert read_bytes <= LIMITS.max_archive_bytes


def tar(data: bytes) -> None:
    """Walks a tar whose first header is whole, so that mutations reach what lies behind it."""
    block = b"a".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"00000000000\0" * 2
    block = (block + b" " * 8 + b"0").ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    archive(block[:148] + b"%06o\0 " % sum(block) + block[156:] + _with_checksums(data))


def timing(data: bytes) -> None:
    """Reads timing metadata."""
    try:
        session = parse_timing_metadata(data, "m")
    except TimingMetadataError as error:
        _assert_tells(error)
        return
    for text in (*session.call.as_tuple(), session.participant_id, session.user_session_id):
        assert len(text.encode("utf-8")) <= 4 * 4_096


def rtpdump(data: bytes) -> None:
    """Reads a dump's records."""
    try:
        records = 0
        for window in read_rtpdump(io.BytesIO(data), "m").windows:
            records += len(window.start)
            assert (window.stop <= len(window.buffer)).all()
            assert (window.start <= window.stop).all()
    except RtpdumpError:
        return
    assert records * 8 <= len(data)


def rtp(data: bytes) -> None:
    """Reads packets; the data is records without a dump's head."""
    try:
        for window in read_rtpdump(io.BytesIO(_DUMP_HEAD + data), "m").windows:
            parsed = parse_rtp_window(window)
            ends = parsed.payload_offset + parsed.payload_bytes
            assert (ends <= len(_DUMP_HEAD) + len(data)).all()
            assert (parsed.payload_bytes >= 0).all()
    except RtpdumpError:
        pass


def rtcp(data: bytes) -> None:
    """Reads one compound RTCP packet."""
    packet = data[:65_000]
    record = struct.pack(">HHI", len(packet) + 8, 0, 0) + packet
    for window in read_rtpdump(io.BytesIO(_DUMP_HEAD + record), "m").windows:
        for report in parse_rtp_window(window).sender_reports:
            assert isinstance(report.sender_unix_ns, int)


def red(data: bytes) -> None:
    """Reads one RED payload, the last thing of a dump."""
    one = np.zeros(1, dtype=np.int64)
    stream = Stream(
        sequence_number=one.astype(np.uint16),
        rtp_timestamp=one.astype(np.uint32),
        ssrc=one.astype(np.uint32),
        payload_type=one.astype(np.uint8),
        arrival_offset_ms=one,
        payload_offset=one + 3,
        payload_bytes=np.array([len(data)], dtype=np.int32),
        fates=no_fates(1),
        sender_reports=(),
    )
    dump = np.frombuffer(b"dmp" + data, dtype=np.uint8)
    copies = unwrap_red(stream, one, np.ones(1, dtype=bool), np.ones(128, dtype=bool), dump)
    start, size = int(stream.payload_offset[0]) - 3, int(stream.payload_bytes[0])
    assert size == BROKEN_BYTES or start + size == len(data)
    assert not len(copies) or size != BROKEN_BYTES
    assert ((copies[:, 1] >= 3) & (copies[:, 1] + copies[:, 2] <= start + 3)).all()


def sdp(data: bytes) -> None:
    """Reads a session description."""
    try:
        maps = parse_sdp(data, "m")
    except SdpError:
        return
    assert all(0 <= number <= 127 for number in maps)


def opus(data: bytes) -> None:
    """Looks at one Opus packet from outside."""
    toc, second = (np.frombuffer((data + b"\0\0")[at : at + 1], dtype=np.uint8) for at in (0, 1))
    samples = int(packet_samples(toc, second)[0])
    if is_valid_packet(data):
        assert 0 < samples <= MAX_PACKET_SAMPLES
        assert carries_fec(data) in (True, False)
        assert has_silk(data) in (True, False)
        assert sum(size for _, size in filler_packets(data[0], samples)) == samples


def arrivals(data: bytes) -> None:
    """Mends arrival times."""
    offsets = np.frombuffer(data[: len(data) // 4 * 4], dtype=">u4").astype(np.int64)
    mended, count = mend_arrivals(offsets)
    assert len(mended) == len(offsets)
    assert 0 <= count <= len(offsets)
    if count:
        assert (np.diff(mended) >= 0).all()


def ingest(data: bytes) -> None:
    """Ingests a dump whose framing is mended, so that mutations reach the packets in it."""
    dump = _DUMP_HEAD + _with_lengths(data)
    try:
        segment = ingest_segment(
            partial(io.BytesIO, dump),
            np.frombuffer(dump, dtype=np.uint8),
            "m",
            _MAPS,
            _TIMING,
            LIMITS,
            tally := Tally(),
        )
    except RecordingError as error:
        _assert_tells(error)
        return
    tally.check()
    for packet_run in segment.packet_runs:
        assert (packet_run.source_offset + packet_run.records["packet_bytes"] <= len(dump)).all()
        assert (np.diff(packet_run.records["media_sample"]) > 0).all()


def unpack(data: bytes) -> None:
    """Unpacks a whole archive."""
    archive = ArchiveInput(name="a", size_bytes=len(data))
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        try:
            unpacked = unpack_archive(
                JobHost(open_input=lambda _: io.BytesIO(data)), archive, Path(folder), LIMITS
            )
        except RecordingError as error:
            _assert_tells(error)
            return
        parts = [part for session in unpacked.sessions for part in session.parts]
        files = {name for part in parts for name in (part.packets_file, part.index_file) if name}
        assert {path.name for path in Path(folder).iterdir()} == files
        for finding in unpacked.findings:
            assert finding.error.message.isprintable()
            assert finding.error.message.encode("utf-8")


def _assert_tells(error: RecordingError) -> None:
    assert error.message.isprintable()
    assert 0 < len(error.message) <= 2_000


def _assert_safe(name: str, *, has_finding: bool) -> None:
    assert name.encode("utf-8") is not None
    if not has_finding:
        parts = name.split("/")
        assert not {"", ".", ".."} & set(parts), name
        assert "\0" not in name
        assert "\\" not in name


def _with_checksums(data: bytes) -> bytes:
    """Returns blocks of 512 bytes in which every one with a tar's magic has the right checksum."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def _with_lengths(data: bytes) -> bytes:
    """Returns records: of each its first byte is the packet's length, the next four its arrival;
    the framing is right.
    """
    out, position = [], 0
    while position + 5 <= len(data):
        packet = data[position + 5 : position + 5 + data[position]]
        plen = 0 if packet[1:2] in (b"\xc8", b"\xc9") else len(packet)
        out.append(
            struct.pack(">HH", len(packet) + 8, plen) + data[position + 1 : position + 5] + packet
        )
        position += 5 + data[position]
    return b"".join(out)


def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


TARGETS: dict[str, Callable[[bytes], Any]] = {
    function.__name__: function
    for function in (
        archive,
        tar,
        timing,
        rtpdump,
        rtp,
        rtcp,
        red,
        sdp,
        opus,
        arrivals,
        ingest,
        unpack,
    )
}
