"""Writes random worlds as archives, and stages them as the product does."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.support.builders import (
    CALL_START_UNIX_MS,
    NTP_UNIX_SECONDS,
    OPUS_PAYLOAD_TYPE,
    make_archive,
    make_sdp,
    make_timing_metadata,
)
from tests.support.worlds.model import Dump, Ints, Reports, Session, World
from transforms.media.archive.read_members import ArchiveInput
from transforms.media.job import JobHost
from transforms.media.settings import LimitSettings
from transforms.media.unpack_archive import UnpackedArchive, unpack_archive

CALL_START_UNIX_NS = CALL_START_UNIX_MS * 1_000_000
PAYLOAD_BYTES = 14
_RECORD = np.dtype(
    [
        ("length", ">u2"),
        ("plen", ">u2"),
        ("offset_ms", ">u4"),
        ("first", "u1"),
        ("second", "u1"),
        ("sequence", ">u2"),
        ("timestamp", ">u4"),
        ("ssrc", ">u4"),
        ("toc", "u1"),
        ("frames", "u1"),
        ("noise", ">u4"),
        ("number", ">u8"),  # as `_SPREAD` makes it
    ]
)
_SPREAD = 0x9E37_79B9_7F4A_7C15
"""An odd number: times it modulo 2**64 no two numbers are one, and neighbours have nothing in
common, as the bytes of two packets of sound have not.
"""
_GATHER = pow(_SPREAD, -1, 1 << 64)
_RTP_BYTES = _RECORD.itemsize - 8
_REPORT = np.dtype(
    [
        ("length", ">u2"),
        ("plen", ">u2"),
        ("offset_ms", ">u4"),
        ("head", ">u4"),
        ("ssrc", ">u4"),
        ("ntp", ">u8"),
        ("timestamp", ">u4"),
        ("counts", ">u8"),
    ]
)
# By duration in ms: TOC byte of full-band CELT, and the byte behind it, which counts the frames
# where there are several (RFC 6716 s3.2.5) and else is the frame's first.
_TOC = {10: (30 << 3, 0x55), 20: (31 << 3, 0x55), 40: (31 << 3 | 3, 2), 60: (31 << 3 | 3, 3)}


def write_archives(world: World) -> list[bytes]:
    """Returns the archives of a world, as plain tars."""
    archives = []
    for archive in range(world.archive_count):
        members: dict[str, bytes] = {}
        metadata: dict[str, bytes] = {}
        for session in world.sessions:
            listed = []
            for number, dump in enumerate(session.dumps):
                if dump.archive != archive:
                    continue
                data, fields = _dump(world, session, number, dump)
                members[f"{dump.base_filename}.rtpdump"] = data
                members[f"{dump.base_filename}.sdp"] = make_sdp()
                listed.append({
                    "base_filename": dump.base_filename,
                    "codec": "audio/opus",
                    "track_id": f"{session.participant_id}:audio",
                    "track_type": "TRACK_TYPE_AUDIO",
                    **fields,
                })  # fmt: skip
            if not listed:
                continue
            metadata[f"{session.participant_id}_timing_metadata.json"] = make_timing_metadata(
                participant_id=session.participant_id,
                user_session_id=f"sess-{session.participant_id}",
                segments={"audio": listed, "video": []},
            )
        if members:
            archives.append(make_archive({**members, **metadata}, "tar"))
    return archives


def _dump(world: World, session: Session, number: int, dump: Dump) -> tuple[bytes, dict[str, int]]:
    """Returns a dump, and what the metadata states of it."""
    packets = session.packets[session.packets["dump"] == number]
    arrival_ns = packets["sent_ns"] + packets["delay_ns"]
    again = packets["again_ns"] > 0
    packets = np.concatenate([packets, packets[again]])
    arrival_ns = np.concatenate(
        [arrival_ns, (arrival_ns + packets["again_ns"][: len(arrival_ns)])[again]]
    )
    order = np.argsort(arrival_ns, kind="stable")
    packets, arrival_ns = packets[order], arrival_ns[order]
    shown_ns = world.server_ns(dump.server, arrival_ns)
    begin_ns = dump.first_ns if world.begins_with_packet else dump.open_ns
    start_ns = int(world.server_ns(dump.server, np.array([begin_ns]))[0]) // 1000 * 1000
    rows = np.zeros(len(packets), dtype=_RECORD)
    rows["length"], rows["plen"] = _RECORD.itemsize, _RTP_BYTES
    # A clock that steps back to before the dump's start has no earlier offset than 0.
    offset_ms = np.maximum((shown_ns - start_ns) // 1_000_000, 0)
    rows["offset_ms"] = 0 if session.has_zero_offsets else offset_ms
    rows["first"], rows["second"] = 0x80, OPUS_PAYLOAD_TYPE
    for name in ("sequence", "timestamp", "ssrc"):
        rows[name] = packets[name]
    for duration_ms, (toc, frames) in _TOC.items():
        its = packets["duration_ms"] == duration_ms
        rows["toc"][its], rows["frames"][its] = toc, frames
    rows["number"] = _spread(packets["number"])
    rows["noise"] = rows["number"] >> np.uint64(16) & np.uint64(0xFFFF_FFFF)
    reports = session.report_rows[session.report_rows["dump"] == number]
    reports = reports[np.argsort(reports["arrival_ns"], kind="stable")]
    fields: dict[str, int] = {}
    half_ns = 500_000 if world.rounds_to_nearest else 0
    for end, place in (("first", 0), ("last", -1)):
        fields[f"{end}_rtp_rtp_timestamp"] = int(packets["timestamp"][place])
        fields[f"{end}_rtp_unix_timestamp"] = (
            CALL_START_UNIX_MS + (int(shown_ns[place]) + half_ns) // 1_000_000
        )
        if len(reports):
            fields[f"{end}_rtcp_rtp_timestamp"] = int(reports["timestamp"][place])
            fields[f"{end}_rtcp_ntp_timestamp"] = (
                CALL_START_UNIX_MS + (int(reports["wall_ns"][place]) + half_ns) // 1_000_000
            )
    body = rows.tobytes()
    if session.reports == Reports.DUMP:
        shown_ns = world.server_ns(dump.server, reports["arrival_ns"])
        offset_ms = np.maximum((shown_ns - start_ns) // 1_000_000, 0)
        body = _with_reports(session, rows, arrival_ns, reports, offset_ms)
    seconds, rest_ns = divmod(CALL_START_UNIX_NS + start_ns, 1_000_000_000)
    head = struct.pack(">IIIHH", seconds, rest_ns // 1000, 0x7F00_0001, 5004, 0)
    return b"#!rtpplay1.0 127.0.0.1/5004\n" + head + body, fields


def _with_reports(
    session: Session,
    rows: np.ndarray,
    arrival_ns: np.ndarray,
    reports: np.ndarray,
    offset_ms: Ints,
) -> bytes:
    """Returns a dump's records, packets and reports as they arrived."""
    records = np.zeros(len(reports), dtype=_REPORT)
    records["length"] = _REPORT.itemsize
    if not session.has_zero_offsets:
        records["offset_ms"] = offset_ms
    records["head"] = 0x80C8_0006
    records["ssrc"], records["timestamp"] = reports["ssrc"], reports["timestamp"]
    wall_ns = CALL_START_UNIX_NS + reports["wall_ns"]
    seconds, rest_ns = np.divmod(wall_ns, 1_000_000_000)
    fraction = rest_ns.astype(np.float64) * (2**32 / 1e9)
    records["ntp"] = ((seconds + NTP_UNIX_SECONDS).astype(np.uint64) << np.uint64(32)) | (
        fraction.astype(np.uint64)
    )
    places = np.searchsorted(arrival_ns, reports["arrival_ns"], side="left").tolist()
    out, before = [], 0
    for place, record in zip(places, records, strict=True):
        out += [rows[before:place].tobytes(), record.tobytes()]
        before = place
    out.append(rows[before:].tobytes())
    return b"".join(out)


def _spread(numbers: Ints) -> npt.NDArray[np.uint64]:
    """Returns the bytes of packets' frames, which no other packet has."""
    return (numbers + 1).astype(np.uint64) * np.uint64(_SPREAD)


def numbers_of(payload: npt.NDArray[np.uint8]) -> Ints:
    """Returns the numbers of packets. Args: payload: their Opus packets, end to end."""
    spread = payload.reshape(-1, PAYLOAD_BYTES)[:, -8:].copy().view(">u8")[:, 0].astype(np.uint64)
    return (spread * np.uint64(_GATHER)).astype(np.int64) - 1


def stage_archive(data: bytes, folder: Path) -> UnpackedArchive:
    """Unpacks an archive into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return unpack_archive(
        JobHost(open_input=lambda name: io.BytesIO(data)),
        ArchiveInput(name="call.tar", size_bytes=len(data)),
        folder,
        LimitSettings(),
    )
