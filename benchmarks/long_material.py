"""Makes archives too long to be held in memory: minutes of packets again and again, their numbers
and times carried on.
"""

from __future__ import annotations

import gzip
import io
import itertools
import struct
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.voices import (
    IN_TURNS_SECONDS,
    PACKETS_PER_SECOND,
    STEREO_SECONDS,
    TALK_SECONDS,
    stereo_talk,
    talk,
    talk_in_turns,
)
from tests.support.builders import (
    SAMPLE_RATE_HZ,
    Segment,
    make_rtp_packet,
    make_rtpdump,
    make_sdp,
    make_segment_dump,
    make_timing_metadata,
)

EIGHT_HOURS_SECONDS = 8 * 3_600
SPEAKERS = 20
STEREO_CALL_SECONDS = 2 * 3_600
VIDEO_PACKET_BYTES = 1_200
VIDEO_PACKETS = 1_900_000
"""Of each of two people: 2.3 GB."""
VIDEO_PACKETS_AT_ONCE = 1_000
_GZIP_LEVEL = 1
_RECORD_BYTES = 8


def eight_hours(folder: Path) -> None:
    """Writes `call.tar.gz`: 19 speakers who talk a tenth of the time, with DTX, and one who sends
    every packet.
    """
    with _writing(folder / "call.tar.gz") as tar:
        for number in range(SPEAKERS):
            if number:
                segment, seconds = (
                    Segment(packets=talk_in_turns(number), ssrc=1_000 + number),
                    IN_TURNS_SECONDS,
                )
            else:
                segment, seconds = Segment(packets=talk(number), ssrc=1_000), TALK_SECONDS
            dump = _LongDump(segment, seconds, EIGHT_HOURS_SECONDS // seconds)
            _add_person(tar, "eight-hours", number, dump)


def five_gigabytes(folder: Path) -> None:
    """Writes `call.tar.gz`: two speakers in stereo, and video of theirs that no output is made
    of.
    """
    with _writing(folder / "call.tar.gz") as tar:
        for number in range(2):
            segment = Segment(packets=stereo_talk(number), ssrc=1_000 + number)
            dump = _LongDump(segment, STEREO_SECONDS, STEREO_CALL_SECONDS // STEREO_SECONDS)
            _add_person(tar, "five-gigabytes", number, dump, with_video=True)


class _LongDump:
    """A segment's dump, `repeats` times over."""

    def __init__(self, segment: Segment, seconds: int, repeats: int) -> None:
        dump, numbers = make_segment_dump(segment)
        head_bytes = dump.index(b"\n") + 1 + 16
        self._head, self._body = dump[:head_bytes], np.frombuffer(dump[head_bytes:], dtype=np.uint8)
        self._seconds, self._repeats = seconds, repeats
        self._packets = sum(map(bool, segment.packets))
        self.size_bytes = len(self._head) + len(self._body) * repeats
        self.timing = dict(numbers)
        added_s = seconds * (repeats - 1)
        for name in numbers:
            if name.startswith("last_"):
                is_rtp = name.endswith("rtp_timestamp")
                self.timing[name] = (
                    (numbers[name] + added_s * SAMPLE_RATE_HZ) % (1 << 32)
                    if is_rtp
                    else numbers[name] + added_s * 1_000
                )
        starts, at = [], 0
        data = self._body.tobytes()
        while at < len(data):
            starts.append(at)
            at += struct.unpack_from(">H", data, at)[0]
        records = np.array(starts)
        is_rtcp = (self._body[records + 2] == 0) & (self._body[records + 3] == 0)
        self._records = records
        self._rtp, self._reports = (
            records[~is_rtcp] + _RECORD_BYTES,
            records[is_rtcp] + _RECORD_BYTES,
        )

    def blocks(self) -> Iterator[bytes]:
        """Yields the dump, a repeat at a time."""
        yield self._head
        for repeat in range(self._repeats):
            body = self._body.copy()
            passed_s = repeat * self._seconds
            _add(body, self._records + 4, passed_s * 1_000, 4)  # arrival in ms
            _add(body, self._rtp + 2, repeat * self._packets, 2)  # sequence number
            _add(body, self._rtp + 4, passed_s * SAMPLE_RATE_HZ, 4)  # RTP timestamp
            _add(body, self._reports + 8, passed_s, 4)  # seconds of the NTP time
            _add(body, self._reports + 16, passed_s * SAMPLE_RATE_HZ, 4)  # RTP timestamp
            _add(
                body, self._reports + 20, passed_s * PACKETS_PER_SECOND, 4
            )  # the sender's count of packets
            yield body.tobytes()


def _add(
    body: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], amount: int, size_bytes: int
) -> None:
    """Adds to big-endian numbers at some places, modulo their size."""
    places = at[:, None] + np.arange(size_bytes)
    weights = 256 ** np.arange(size_bytes - 1, -1, -1, dtype=np.int64)
    values = (body[places].astype(np.int64) @ weights + amount) % 256**size_bytes
    body[places] = values[:, None] // weights % 256


def _video_blocks() -> Iterator[bytes]:
    """Yields a dump of packets that cannot be compressed."""
    rng = np.random.default_rng(1)
    packets = [
        make_rtp_packet(rng.bytes(VIDEO_PACKET_BYTES - 12), sequence_number=number, payload_type=96)
        for number in range(VIDEO_PACKETS_AT_ONCE)
    ]
    dump = make_rtpdump(0, [(number, packet, False) for number, packet in enumerate(packets)])
    head_bytes = dump.index(b"\n") + 1 + 16
    yield dump[:head_bytes]
    for _ in range(VIDEO_PACKETS // VIDEO_PACKETS_AT_ONCE):
        yield dump[head_bytes:]


# --- archives -------------------------------------------------------------------------------------


@contextmanager
def _writing(path: Path) -> Iterator[tarfile.TarFile]:
    with (
        path.open("wb") as file,
        gzip.GzipFile(
            filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0
        ) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


def _add_person(
    tar: tarfile.TarFile, call: str, number: int, dump: _LongDump, *, with_video: bool = False
) -> None:
    """Adds a participant's dumps, descriptions and metadata, in this order."""
    session = f"sess-p{number:02d}"
    audio = {
        "base_filename": f"p{number:02d}_audio",
        "codec": "audio/opus",
        "track_id": f"{session}:TRACK_TYPE_AUDIO",
        "track_type": "TRACK_TYPE_AUDIO",
        **dump.timing,
    }
    video = {
        "base_filename": f"p{number:02d}_video",
        "codec": "video/VP8",
        "track_id": f"{session}:TRACK_TYPE_VIDEO",
        "track_type": "TRACK_TYPE_VIDEO",
    }
    _add_member(tar, f"p{number:02d}_audio.rtpdump", dump.size_bytes, dump.blocks())
    _add_small(tar, f"p{number:02d}_audio.sdp", make_sdp())
    if with_video:
        blocks = _video_blocks()
        head = next(blocks)
        size_bytes = len(head) + VIDEO_PACKETS * (VIDEO_PACKET_BYTES + _RECORD_BYTES)
        _add_member(
            tar, f"p{number:02d}_video.rtpdump", size_bytes, itertools.chain([head], blocks)
        )
    fields: Mapping[str, Any] = {
        "call_id": call,
        "call_session_id": f"{call}-1",
        "participant_id": f"p{number:02d}",
        "user_session_id": session,
        "segments": {"audio": [audio], "video": [video] if with_video else []},
    }
    _add_small(tar, f"p{number:02d}_timing_metadata.json", make_timing_metadata(fields))


def _add_small(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    _add_member(tar, name, len(data), iter([data]))


def _add_member(tar: tarfile.TarFile, name: str, size_bytes: int, blocks: Iterator[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    tar.addfile(info, io.BufferedReader(_Blocks(blocks), 1 << 20))


class _Blocks(io.RawIOBase):
    """Reads what comes in blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
