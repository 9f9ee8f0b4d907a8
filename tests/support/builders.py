"""Builds what the tests read: packets, dumps, descriptions, metadata, Opus, whole archives.

Everything is a plain function of its arguments: no clock, no random source without a seed, so equal
arguments give equal bytes. Times are integers: ms for arrivals as dumps hold them, samples at 48
kHz for media.
"""

from __future__ import annotations

import ctypes
import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.media.opus.libopus import load_libopus

SAMPLE_RATE_HZ = 48_000
OPUS_PAYLOAD_TYPE = 111
RED_PAYLOAD_TYPE = 63
SSRC = 0x1234_5678
CALL_START_UNIX_MS = 1_767_607_200_000
"""2026-01-05T10:00:00Z."""
NTP_UNIX_SECONDS = 2_208_988_800

APPLICATION_VOIP = 2048
APPLICATION_AUDIO = 2049
APPLICATION_LOW_DELAY = 2051

Pcm = npt.NDArray[np.float32]
"""float32, (samples, channels), full scale 1.0."""


# --- packets --------------------------------------------------------------------------------------


def make_rtp_packet(
    payload: bytes = b"",
    *,
    sequence_number: int = 0,
    rtp_timestamp: int = 0,
    ssrc: int = SSRC,
    payload_type: int = OPUS_PAYLOAD_TYPE,
    marker: bool = False,
    csrcs: Sequence[int] = (),
    one_byte_extension: Sequence[tuple[int, bytes]] = (),
    two_byte_extension: Sequence[tuple[int, bytes]] = (),
    padding_bytes: int = 0,
    version: int = 2,
) -> bytes:
    """Returns an RTP packet (RFC 3550 s5.1); wide numbers are cut to their field, as a wrap does.

    Args:
      payload: what follows the headers.
      sequence_number: modulo 2**16.
      rtp_timestamp: modulo 2**32.
      ssrc: modulo 2**32.
      payload_type: 0 to 127.
      marker: the M bit.
      csrcs: up to 15 contributing sources.
      one_byte_extension: (id, 1 to 16 bytes) elements (RFC 8285 s4.2).
      two_byte_extension: (id, 0 to 255 bytes) elements (RFC 8285 s4.3); not together with the other
        form.
      padding_bytes: 0 for none, else the length of the padding, its count byte included.
      version: 2, anything else makes the packet invalid.
    """
    if one_byte_extension and two_byte_extension:
        raise ValueError("a packet has one form of header extension")
    extension = b""
    if one_byte_extension:
        data = b"".join(
            bytes([element << 4 | len(value) - 1]) + value for element, value in one_byte_extension
        )
        extension = struct.pack(">HH", 0xBEDE, -(-len(data) // 4)) + data.ljust(
            -(-len(data) // 4) * 4, b"\0"
        )
    elif two_byte_extension:
        data = b"".join(
            bytes([element, len(value)]) + value for element, value in two_byte_extension
        )
        extension = struct.pack(">HH", 0x1000, -(-len(data) // 4)) + data.ljust(
            -(-len(data) // 4) * 4, b"\0"
        )
    first = version << 6 | bool(padding_bytes) << 5 | bool(extension) << 4 | len(csrcs)
    header = struct.pack(
        ">BBHII",
        first,
        marker << 7 | payload_type,
        sequence_number % (1 << 16),
        rtp_timestamp % (1 << 32),
        ssrc % (1 << 32),
    )
    padding = bytes(padding_bytes - 1) + bytes([padding_bytes]) if padding_bytes else b""
    return (
        header + b"".join(struct.pack(">I", csrc) for csrc in csrcs) + extension + payload + padding
    )


def make_rtcp_sender_report(
    *,
    ssrc: int = SSRC,
    ntp_time: int = 0,
    rtp_timestamp: int = 0,
    packet_count: int = 0,
    octet_count: int = 0,
    cname: str | None = "sender",
) -> bytes:
    """Returns a compound RTCP packet: a sender report without report blocks (RFC 3550 s6.4.1), then
    the SDES CNAME.

    Args:
      ssrc: of the sender.
      ntp_time: 32.32 fixed point since 1900; `ntp_time_of_unix_ms` makes one.
      rtp_timestamp: modulo 2**32.
      packet_count: as stated.
      octet_count: as stated.
      cname: None for a report on its own.
    """
    report = struct.pack(
        ">BBHIQIII",
        0x80,
        200,
        6,
        ssrc,
        ntp_time,
        rtp_timestamp % (1 << 32),
        packet_count,
        octet_count,
    )
    if cname is None:
        return report
    text = cname.encode()
    chunk = struct.pack(">IBB", ssrc, 1, len(text)) + text + b"\0"
    chunk = chunk.ljust(-(-len(chunk) // 4) * 4, b"\0")
    return report + struct.pack(">BBH", 0x81, 202, len(chunk) // 4) + chunk


def ntp_time_of_unix_ms(unix_ms: int) -> int:
    """Returns a Unix time in ms as 32.32 fixed point since 1900."""
    seconds, rest_ms = divmod(unix_ms, 1000)
    return (seconds + NTP_UNIX_SECONDS) << 32 | (rest_ms << 32) // 1000


def make_red_payload(
    primary: bytes,
    older: Sequence[tuple[int, bytes]] = (),
    *,
    payload_type: int = OPUS_PAYLOAD_TYPE,
) -> bytes:
    """Returns a RED payload (RFC 2198 s3).

    Args:
      primary: the packet's own Opus packet.
      older: (timestamp offset in ticks, below 2**14; Opus packet below 2**10 bytes), oldest first.
      payload_type: of all blocks.
    """
    headers = b""
    for offset, block in older:
        headers += bytes([0x80 | payload_type]) + (offset << 10 | len(block)).to_bytes(3, "big")
    return headers + bytes([payload_type]) + b"".join(block for _, block in older) + primary


def make_rtpdump(
    start_unix_us: int,
    records: Iterable[tuple[int, bytes, bool]],
    *,
    address: str = "127.0.0.1/5004",
) -> bytes:
    """Returns a packet dump.

    Args:
      start_unix_us: the dump's start in Unix microseconds.
      records: (arrival_offset_ms, packet, is_rtcp) in the order of the file.
      address: of the text line.
    """
    seconds, microseconds = divmod(start_unix_us, 1_000_000)
    out = [
        f"#!rtpplay1.0 {address}\n".encode(),
        struct.pack(">IIIHH", seconds, microseconds, 0x7F00_0001, 5004, 0),
    ]
    for arrival_offset_ms, packet, is_rtcp in records:
        out.append(
            struct.pack(">HHI", len(packet) + 8, 0 if is_rtcp else len(packet), arrival_offset_ms)
            + packet
        )
    return b"".join(out)


def make_sdp(
    maps: Sequence[tuple[int, str]] = ((OPUS_PAYLOAD_TYPE, "opus/48000/2"),),
    *,
    line_end: str = "\n",
) -> bytes:
    """Returns a session description of one audio stream. Args: maps: (payload type, `rtpmap`
    encoding).
    """
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
    lines.append("m=audio 5004 RTP/AVP " + " ".join(str(number) for number, _ in maps))
    for number, encoding in maps:
        lines.append(f"a=rtpmap:{number} {encoding}")
        if encoding.startswith("red/"):
            lines.append(f"a=fmtp:{number} {OPUS_PAYLOAD_TYPE}/{OPUS_PAYLOAD_TYPE}")
        elif encoding.startswith("opus/"):
            lines.append(f"a=fmtp:{number} minptime=10;useinbandfec=1")
    return (line_end.join(lines) + line_end).encode()


def make_timing_metadata(fields: Mapping[str, Any] | None = None, **changes: Any) -> bytes:
    """Returns timing metadata as JSON: a session that sent nothing, with `fields` and `changes` on
    top.

    A value of `...` takes the field out.
    """
    data: dict[str, Any] = {
        "call_type": "default",
        "call_id": "standup",
        "call_session_id": "session-1",
        "call_start_time": "2026-01-05T10:00:00Z",
        "participant_id": "alice",
        "user_session_id": "sess-alice",
        "segments": {"audio": [], "video": []},
    }
    data.update(fields or {})
    data.update(changes)
    return json.dumps({name: value for name, value in data.items() if value is not ...}).encode()


# --- archives -------------------------------------------------------------------------------------


def make_archive(members: Mapping[str, bytes], kind: str = "tar.gz") -> bytes:
    """Returns an archive of files in the order given. Args: kind: `tar.gz`, `tar` or `zip`."""
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(
                    zipfile.ZipInfo(name, (2026, 1, 5, 10, 0, 0)), data, zipfile.ZIP_DEFLATED
                )
        return out.getvalue()
    if kind not in ("tar", "tar.gz"):
        raise ValueError(f"kind is {kind!r}, expected tar.gz, tar or zip")
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return (
        gzip.compress(out.getvalue(), compresslevel=1, mtime=0)
        if kind == "tar.gz"
        else out.getvalue()
    )


def write_folder(folder: Path, members: Mapping[str, bytes]) -> tuple[tuple[str, int], ...]:
    """Writes members below a folder; returns the relative path and size of each."""
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tuple((name, len(data)) for name, data in members.items())


# --- audio ----------------------------------------------------------------------------------------


def tone(frequency_hz: float, seconds: float, channels: int = 1, *, amplitude: float = 0.25) -> Pcm:
    """Returns a sine at 48 kHz, the same in all channels."""
    phase = 2 * np.pi * frequency_hz * np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    wave = (amplitude * np.sin(phase)).astype(np.float32)
    return np.repeat(wave[:, None], channels, axis=1)


def silence(seconds: float, channels: int = 1) -> Pcm:
    """Returns digital silence at 48 kHz."""
    return np.zeros((round(seconds * SAMPLE_RATE_HZ), channels), dtype=np.float32)


def noise(seconds: float, channels: int = 1, *, amplitude: float = 0.1, seed: int = 1) -> Pcm:
    """Returns white noise at 48 kHz, its own in each channel."""
    drawn = np.random.default_rng(seed).uniform(
        -amplitude, amplitude, (round(seconds * SAMPLE_RATE_HZ), channels)
    )
    return drawn.astype(np.float32)


def encode_opus(
    pcm: Pcm,
    *,
    frame_ms: float = 20,
    bitrate_bps: int = 32_000,
    application: int = APPLICATION_VOIP,
    dtx: bool = False,
    fec: bool = False,
    expected_loss_percent: int = 0,
    complexity: int = 5,
    bandwidth: int | None = None,
) -> list[bytes]:
    """Returns the Opus packets of some audio; what does not fill the last one is padded with
    silence.

    With `dtx` a packet may be empty: the sender withholds it, its time passes all the same.

    Args:
      pcm: float32, (samples, 1 or 2 channels), at 48 kHz.
      frame_ms: duration of a packet: 2.5, 5, 10, 20, 40, 60, 80, 100 or 120.
      bitrate_bps: target, variable rate.
      application: `APPLICATION_VOIP`, `APPLICATION_AUDIO` or `APPLICATION_LOW_DELAY`.
      dtx: withhold packets in silence.
      fec: carry a low-rate copy of the packet before; takes effect with `expected_loss_percent`
        above 0.
      expected_loss_percent: what the encoder is told of the network.
      complexity: 0 to 10; browsers take 9 on a desktop and 5 on a phone.
      bandwidth: audio bandwidth as opus_defines.h numbers it, 1101 (narrow band) to 1105 (full
        band); None lets the encoder choose.
    """
    library = load_libopus()
    library.opus_encoder_create.restype = ctypes.c_void_p
    library.opus_encoder_create.argtypes = [
        ctypes.c_int32,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_int),
    ]
    library.opus_encoder_destroy.restype = None
    library.opus_encoder_destroy.argtypes = [ctypes.c_void_p]
    library.opus_encoder_ctl.restype = ctypes.c_int
    library.opus_encode_float.restype = ctypes.c_int32
    library.opus_encode_float.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int32,
    ]  # fmt: skip
    channels = pcm.shape[1]
    error = ctypes.c_int()
    state = ctypes.c_void_p(
        library.opus_encoder_create(SAMPLE_RATE_HZ, channels, application, ctypes.byref(error))
    )
    if error.value:
        raise ValueError(
            f"libopus error {error.value} when creating an encoder of {channels} channels"
        )
    try:
        # Request numbers of opus_defines.h: bit rate, complexity, in-band FEC, expected loss, DTX,
        # bandwidth, of which -1000 is the encoder's choice.
        for request, value in (
            (4002, bitrate_bps),
            (4010, complexity),
            (4012, int(fec)),
            (4014, expected_loss_percent),
            (4016, int(dtx)),
            (4008, -1000 if bandwidth is None else bandwidth),
        ):
            if library.opus_encoder_ctl(state, ctypes.c_int(request), ctypes.c_int32(value)):
                raise ValueError(f"libopus refuses {value} for request {request}")
        frame_samples = round(frame_ms * SAMPLE_RATE_HZ / 1000)
        buffer = ctypes.create_string_buffer(4_000)
        packets = []
        for start in range(0, len(pcm), frame_samples):
            block = np.zeros((frame_samples, channels), dtype=np.float32)
            part = pcm[start : start + frame_samples]
            block[: len(part)] = part
            size = library.opus_encode_float(
                state, block.ctypes.data, frame_samples, buffer, len(buffer)
            )
            if size < 0:
                raise ValueError(f"libopus error {size} when encoding {frame_ms} ms")
            # opus_encode: a packet of 2 bytes or less need not be transmitted.
            packets.append(b"" if dtx and size <= 2 else buffer.raw[:size])
        return packets
    finally:
        library.opus_encoder_destroy(state)


# --- whole calls ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What one dump holds. Packet numbers below are indices into `packets`."""

    packets: Sequence[bytes]
    """Opus packets in order; an empty one was withheld by DTX: its time passes, it takes no
    sequence number.
    """
    start_ms: int = 0
    """When its first sample was heard, counted from the start of the call, on the server's
    clock.
    """
    packet_samples: int = 960
    """Duration of every packet."""
    track_type: str = "TRACK_TYPE_AUDIO"
    track_id: str | None = None
    """None for the session's id and the track type."""
    ssrc: int = SSRC
    first_sequence_number: int = 1_000
    first_rtp_timestamp: int = 10_000
    clock_rate_hz: int = SAMPLE_RATE_HZ
    """What RTP time stamps count in a second; anything but 48 kHz is a sender's mistake."""
    lost: Collection[int] = ()
    """Packets that never arrive."""
    duplicated: Collection[int] = ()
    """Packets that arrive again, 1 ms later."""
    swapped: Collection[int] = ()
    """Packets that arrive right after the next one."""
    late_ms: Mapping[int, int] = field(default_factory=dict)
    """Extra network delay of single packets."""
    stalls_ms: Mapping[int, int] = field(default_factory=dict)
    """From this packet on everything arrives that much later: the sender's media clock stood
    still.
    """
    padding_only: Collection[int] = ()
    """Packets followed by a probe of padding that takes a sequence number."""
    red_copies: int = 0
    """Earlier packets each packet carries again (RFC 2198); 0 sends plain Opus."""
    red_distance: int = 1
    """How many packets back the nearest of those is."""
    sender_reports: bool = True
    """Whether the dump holds a sender report every 5 s."""
    sender_clock_ms: int = 0
    """How far the sender's wall clock is ahead of the server's."""
    codec: str | None = None
    """As the metadata states it; None for what the packets are."""
    base_filename: str | None = None
    """None for a name made of the ids."""
    with_sdp: bool = True
    with_dump: bool = True


@dataclass(frozen=True, kw_only=True)
class Participant:
    """One participant session of a call."""

    participant_id: str
    segments: Sequence[Segment] = ()
    user_session_id: str | None = None
    """None for `sess-` and the participant's id."""


def make_segment_dump(
    segment: Segment, call_start_unix_ms: int = CALL_START_UNIX_MS
) -> tuple[bytes, dict[str, int]]:
    """Returns a segment's dump, and the numbers its metadata states of it by their names there.

    The dump starts when the segment does. A packet arrives once its last sample was heard, whole
    ms, plus its delays.
    """
    records: list[tuple[int, int, bytes, bool]] = []  # arrival in ms, order, packet, is_rtcp
    sequence_number, delay_ms, order = segment.first_sequence_number, 0, 0
    arrivals: list[int] = []
    for index, packet in enumerate(segment.packets):
        delay_ms += segment.stalls_ms.get(index, 0)
        media_sample = index * segment.packet_samples
        ticks = media_sample * segment.clock_rate_hz // SAMPLE_RATE_HZ
        timestamp = segment.first_rtp_timestamp + ticks
        arrival_ms = (media_sample + segment.packet_samples) * 1000 // SAMPLE_RATE_HZ
        arrival_ms += delay_ms + segment.late_ms.get(index, 0)
        arrivals.append(arrival_ms)
        if segment.sender_reports and media_sample % (5 * SAMPLE_RATE_HZ) < segment.packet_samples:
            wall_ms = call_start_unix_ms + segment.start_ms + segment.sender_clock_ms + delay_ms
            report = make_rtcp_sender_report(
                ssrc=segment.ssrc,
                ntp_time=ntp_time_of_unix_ms(wall_ms + media_sample * 1000 // SAMPLE_RATE_HZ),
                rtp_timestamp=timestamp,
                packet_count=index,
            )
            records.append((arrival_ms, order, report, True))
            order += 1
        if not packet:
            continue
        if index not in segment.lost:
            payload, payload_type = packet, OPUS_PAYLOAD_TYPE
            if segment.red_copies:
                older = [
                    ((index - back) * segment.packet_samples, segment.packets[back])
                    for back in range(
                        index - segment.red_copies - segment.red_distance + 1,
                        index - segment.red_distance + 1,
                    )
                    if back >= 0
                    and segment.packets[back]
                    and (index - back) * segment.packet_samples < 1 << 14
                ]
                payload, payload_type = make_red_payload(packet, older), RED_PAYLOAD_TYPE
            rtp_packet = make_rtp_packet(
                payload,
                sequence_number=sequence_number,
                rtp_timestamp=timestamp,
                ssrc=segment.ssrc,
                payload_type=payload_type,
                marker=index == 0 or not segment.packets[index - 1],
            )
            # A swapped packet shares the arrival of the next and comes after it in the file.
            swapped = index in segment.swapped
            at_ms = arrival_ms + (segment.packet_samples * 1000 // SAMPLE_RATE_HZ if swapped else 0)
            records.append((at_ms, order + (10 if swapped else 0), rtp_packet, False))
            order += 1
            if index in segment.duplicated:
                records.append((at_ms + 1, order, rtp_packet, False))
                order += 1
        sequence_number += 1
        if index in segment.padding_only:
            probe = make_rtp_packet(
                sequence_number=sequence_number,
                rtp_timestamp=timestamp,
                ssrc=segment.ssrc,
                padding_bytes=255,
            )
            records.append((arrival_ms, order, probe, False))
            order += 1
            sequence_number += 1
    records.sort(key=lambda record: record[:2])
    dump = make_rtpdump(
        (call_start_unix_ms + segment.start_ms) * 1000,
        [(at, packet, rtcp) for at, _, packet, rtcp in records],
    )
    heard = [(at, packet) for at, _, packet, is_rtcp in records if not is_rtcp]
    if not heard:
        return dump, {}
    numbers = {}
    for name, (at, packet) in (("first", heard[0]), ("last", heard[-1])):
        numbers[f"{name}_rtp_rtp_timestamp"] = int.from_bytes(packet[4:8], "big")
        numbers[f"{name}_rtp_unix_timestamp"] = call_start_unix_ms + segment.start_ms + at
    reports = [packet for _, _, packet, is_rtcp in records if is_rtcp]
    if reports:
        for name, report in (("first", reports[0]), ("last", reports[-1])):
            ntp_time, timestamp = struct.unpack_from(">QI", report, 8)
            numbers[f"{name}_rtcp_rtp_timestamp"] = timestamp
            unix = ntp_time - (NTP_UNIX_SECONDS << 32)
            numbers[f"{name}_rtcp_ntp_timestamp"] = (unix * 1000 + (1 << 31)) >> 32
    return dump, numbers


def make_call_members(
    participants: Sequence[Participant],
    *,
    call_type: str = "default",
    call_id: str = "standup",
    call_session_id: str = "session-1",
    call_start_unix_ms: int = CALL_START_UNIX_MS,
    folder: str = "",
) -> dict[str, bytes]:
    """Returns the members of a call's archive, by name: dumps and descriptions first, the metadata
    last.

    Args:
      participants: the call's sessions.
      call_type: as the metadata states it.
      call_id: as the metadata states it.
      call_session_id: as the metadata states it.
      call_start_unix_ms: start of the call session; what the segments' `start_ms` count from.
      folder: where all members lie, with a slash at the end; empty for the top.
    """
    members: dict[str, bytes] = {}
    metadata: dict[str, bytes] = {}
    seconds, rest_ms = divmod(call_start_unix_ms, 1000)
    start_time = f"{np.datetime64(seconds, 's')}.{rest_ms:03d}Z"
    for number, participant in enumerate(participants):
        session = participant.user_session_id or f"sess-{participant.participant_id}"
        listed = []
        for segment_number, segment in enumerate(participant.segments):
            base = (
                segment.base_filename or f"p{number}_{segment.track_type.lower()}_{segment_number}"
            )
            dump, numbers = make_segment_dump(segment, call_start_unix_ms)
            maps = [(OPUS_PAYLOAD_TYPE, "opus/48000/2")]
            if segment.red_copies:
                maps.insert(0, (RED_PAYLOAD_TYPE, "red/48000/2"))
            if segment.with_dump:
                members[f"{folder}{base}.rtpdump"] = dump
            if segment.with_sdp:
                members[f"{folder}{base}.sdp"] = make_sdp(maps)
            listed.append(
                {
                    "base_filename": base,
                    "codec": segment.codec or ("audio/red" if segment.red_copies else "audio/opus"),
                    "track_id": segment.track_id or f"{session}:{segment.track_type}",
                    "track_type": segment.track_type,
                    **numbers,
                }
            )
        metadata[f"{folder}p{number}_timing_metadata.json"] = make_timing_metadata(
            call_type=call_type,
            call_id=call_id,
            call_session_id=call_session_id,
            call_start_time=start_time,
            participant_id=participant.participant_id,
            user_session_id=session,
            segments={"audio": listed, "video": []},
        )
    return {**members, **metadata}


def make_call_archive(
    participants: Sequence[Participant],
    *,
    kind: str = "tar.gz",
    call_type: str = "default",
    call_id: str = "standup",
    call_session_id: str = "session-1",
    call_start_unix_ms: int = CALL_START_UNIX_MS,
    folder: str = "",
    extra_members: Mapping[str, bytes] | None = None,
) -> bytes:
    """Returns the archive of a call: `make_call_members` with `extra_members` behind, in a
    container of that kind.
    """
    members = make_call_members(
        participants,
        call_type=call_type,
        call_id=call_id,
        call_session_id=call_session_id,
        call_start_unix_ms=call_start_unix_ms,
        folder=folder,
    )
    return make_archive({**members, **(extra_members or {})}, kind)
