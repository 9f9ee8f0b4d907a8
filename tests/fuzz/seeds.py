"""Writes the seed corpus: a folder per target, made from the builders and the hostile archives.

python -m tests.fuzz.seeds /tmp/corpus
"""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.support.builders import (
    RED_PAYLOAD_TYPE,
    encode_opus,
    make_archive,
    make_red_payload,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    make_sdp,
    make_timing_metadata,
    noise,
    tone,
)
from tests.support.hostile.cases import CASES
from tests.support.hostile.good_call import good_members
from tests.support.hostile.guest import dump_of, plain_packets
from tests.support.hostile.raw_tar import pax_entry, tar_entry

_MOST_BYTES = 20_000
"""A seed that is larger slows the fuzzer down."""


def seeds(target: str) -> Iterable[bytes]:
    """Returns inputs that take a target's paths, large ones left out."""
    small = {name: data for name, data in good_members("seed").items() if len(data) < 6_000}
    if target in ("archive", "unpack"):
        yield from (make_archive(small, kind) for kind in ("tar", "tar.gz", "zip"))
        for name, case in CASES.items():
            if not any(
                word in name
                for word in ("bomb", "99000", "too_many", "20000", "100000", "more_segments")
            ):
                yield case.build()
    elif target == "tar":
        yield tar_entry("b.sdp", make_sdp())
        yield pax_entry({b"path": b"c.sdp", b"size": b"5"}) + tar_entry("x", b"12345")
        yield tar_entry("L", b"long name\0", b"L") + tar_entry("x", b"1") + bytes(1_024)
        yield tar_entry("s", b"", b"S") + tar_entry("l", b"", b"2", link=b"x")
    elif target == "timing":
        yield from (data for name, data in good_members("seed").items() if name.endswith(".json"))
        yield make_timing_metadata(
            segments={
                "audio": [{"base_filename": "a", "first_rtp_unix_timestamp": 1e400}],
                "video": None,
            }
        )
        for name, case in CASES.items():
            if (
                name.startswith(("json_", "id_"))
                and "100000" not in name
                and "more_segments" not in name
            ):
                yield _member_of(case.build())
    elif target == "rtpdump":
        yield dump_of(plain_packets(20))
        yield make_rtpdump(0, [(0, b"", True), (5, b"x" * 30, False)])
    elif target == "rtp":
        yield _records(20)
        packet = make_rtp_packet(
            b"abc", csrcs=[1, 2], one_byte_extension=[(1, b"x")], padding_bytes=4
        )
        yield struct.pack(">HHI", len(packet) + 8, len(packet), 5) + packet
    elif target == "rtcp":
        yield make_rtcp_sender_report(ntp_time=1 << 63)
        yield make_rtcp_sender_report(cname=None) * 3
    elif target == "red":
        yield make_red_payload(b"\x08abc", [(960, b"\x08x"), (1_920, b"\x08yy")])
    elif target == "sdp":
        yield make_sdp([(RED_PAYLOAD_TYPE, "red/48000/2"), (111, "opus/48000/2")])
        yield make_sdp(line_end="\r\n")
    elif target == "opus":
        for frame_ms in (2.5, 20, 60, 120):
            yield from encode_opus(tone(300, 0.25), frame_ms=frame_ms)[:2]
        yield from encode_opus(noise(0.1, 2), fec=True, expected_loss_percent=10)[:2]
        yield from (
            bytes([config << 3 | code, 3, 1, 1]) + bytes(9)
            for config in range(0, 32, 5)
            for code in range(4)
        )
    elif target == "arrivals":
        yield struct.pack(">9I", 0, 20, 40, 2**32 - 1, 60, 0, 80_000, 100, 99_000)
    elif target == "ingest":
        yield _ingest_records(plain_packets(30))
        red = make_red_payload(b"\x08abc", [(960, b"\x08x")])
        yield _ingest_records(plain_packets(20, payload=red, payload_type=RED_PAYLOAD_TYPE))
        yield _ingest_records(
            [*plain_packets(5), (100, make_rtcp_sender_report(ntp_time=5 << 32, cname=None), True)]
        )
        yield _ingest_records(
            plain_packets(20, sequence_number=lambda n: 7 * n, rtp_timestamp=lambda n: 960 * 7 * n)
        )


def _member_of(data: bytes) -> bytes:
    """Returns the last metadata of a hostile archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = [name for name in archive.getnames() if name.startswith(("z_", "mallory_timing"))]
        found = archive.extractfile(names[-1])
        return found.read() if found else b""


def _records(count: int) -> bytes:
    dump = dump_of(plain_packets(count))
    return dump[dump.index(b"\n") + 17 :]


def _ingest_records(packets: Iterable[tuple[int, bytes, bool]]) -> bytes:
    return b"".join(
        bytes([len(packet)]) + struct.pack(">I", at) + packet
        for at, packet, _ in packets
        if len(packet) < 256
    )


def write_corpus(folder: Path, targets: Iterable[str]) -> dict[str, int]:
    """Writes the seeds of some targets; returns how many each has."""
    written = {}
    for target in targets:
        place = folder / target
        place.mkdir(parents=True, exist_ok=True)
        found = [data for data in seeds(target) if len(data) <= _MOST_BYTES]
        for data in found:
            (place / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        written[target] = len(found)
    return written


if __name__ == "__main__":
    from tests.fuzz.targets import TARGETS

    print(write_corpus(Path(sys.argv[1]), TARGETS))
