"""Writes and reads a track's staged packets: in order, each once, RED taken off.

A file is a row of windows; a window is two arrays in NumPy's npy format, one after the other:
records of `PACKET_DTYPE`, then their Opus packets end to end as bytes. A window never spans two
packet runs, so a packet run can be read on its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media.clock.call_clock import on_call_clock
from transforms.media.clock.model import ClockMethod, PacketRunClock, Plateau, StepEvidence
from transforms.media.rtp.dump_claims import DumpEnds, SegmentClaim
from transforms.media.rtp.fates import Fate
from transforms.media.rtp.streams import PacketCounts
from transforms.media.server_clock import ServerClock
from transforms.media.units import Bytes, Ints, samples_to_ns
from transforms.media.values import Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPacketRun:
    """A packet run of one segment, and where its packets are staged."""

    base_filename: str
    track_id: str
    ssrc: int
    packet_count: int
    packets_lost: int
    media_stop_sample: int
    """End of the last packet, counted from the first."""
    file_offset_bytes: int
    """Where its first window begins in the staged packet file."""
    clock: PacketRunClock
    copy_count: int = 0
    """Packets that only a redundant copy (RFC 2198) brought: no records of their own."""
    is_encrypted: bool = False
    """Whether its packets were encrypted end to end: they are kept, and never decoded."""
    server_doubt_ns: int = 0
    """How far its times may be off for what is not known of the clock of its server."""

    @property
    def stop_server_unix_ns(self) -> int:
        """About when the packet run ends, at the nominal rate."""
        end = self.clock.base_unix_ns + samples_to_ns(self.media_stop_sample)
        return end + min(delay for _, delay in self.clock.plateaus[-1].hull)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedDump:
    """What the metadata claims of one segment, and what became of its dump."""

    base_filename: str
    member: str | None
    """The dump that was read for it; None where the archive has none."""
    claim: SegmentClaim
    ends: DumpEnds
    arrivals_unix_ns: tuple[int, int] | None
    """When the first and the last RTP packet of the dump arrived; None without any."""
    records: int | None
    """How many the dump has; None where there is no dump, or it was not read to its end."""
    fates: dict[Fate, int]
    """Of all records; those that were staged count as placed."""
    packet_ms: float
    """How long its packets last, in the mean."""
    told: tuple[Fate, ...]
    """Fates that a finding tells of already; `REFUSED` for one that is about the whole dump."""

    is_cut_told: bool
    """Whether a finding tells why the dump may be shorter than it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartIndex:
    """What one archive holds of one track: the index beside its staged packets.

    A track has a part for each archive that has segments of it.
    """

    channels: int
    codec: Codec
    segment_count: int
    counts: PacketCounts
    jitter_ms: float | None
    packet_runs: tuple[StagedPacketRun, ...]
    dumps: tuple[StagedDump, ...] = ()
    """One for each segment, in order of time."""


WINDOW_PACKETS = 4_096
_MOST_BETWEEN = 4
"""Times the bytes of a window's packets that they may be spread over, and `_FREE_BYTES` more, to be
copied in one go.
"""
_FREE_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketWindow:
    """Some consecutive packets of a packet run."""

    records: npt.NDArray[np.void]
    """Of `PACKET_DTYPE`, shape (packets,)."""
    payload: Bytes
    """Their Opus packets end to end."""


def write_packet_run(
    file: BinaryIO,
    records: npt.NDArray[np.void],
    source: Bytes,
    source_offset: Ints,
    let_go: Callable[[], None] = lambda: None,
) -> None:
    """Appends the packets of one packet run.

    Args:
      file: open for writing, positioned at its end.
      records: of `PACKET_DTYPE`, in sequence order; shape (packets,).
      source: bytes that hold the packets, e.g. a mapped dump.
      source_offset: index of each packet's first byte in `source`; shape (packets,).
      let_go: called after each window, when what was read of `source` is not needed for now.
    """
    for start in range(0, len(records), WINDOW_PACKETS):
        window = records[start : start + WINDOW_PACKETS]
        payload = _join_packets(
            source,
            source_offset[start : start + len(window)],
            window["packet_bytes"].astype(np.int64),
        )
        np.save(file, window, allow_pickle=False)
        np.save(file, payload, allow_pickle=False)
        let_go()


def _join_packets(source: Bytes, offset: Ints, size: Ints) -> Bytes:
    """Returns the bytes of packets end to end."""
    stop = offset + size
    between = offset[1:] - stop[:-1]
    span = int(stop[-1] - offset[0])
    if between.min(initial=0) < 0 or span > _MOST_BETWEEN * int(size.sum()) + _FREE_BYTES:
        whole = source.data
        packets = [
            whole[first:last] for first, last in zip(offset.tolist(), stop.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(packets), dtype=np.uint8)
    # One behind the other with little between, as they came: that is left out, which is twice as
    # fast.
    lengths = np.zeros(2 * len(size), dtype=np.int64)
    lengths[::2], lengths[1:-1:2] = size, between
    is_packet = np.repeat(np.arange(len(lengths)) % 2 == 0, lengths)
    payload: Bytes = source[int(offset[0]) : int(stop[-1])][is_packet]
    return payload


def read_packet_run(file: BinaryIO, packet_run: StagedPacketRun) -> Iterator[PacketWindow]:
    """Yields the packets of one packet run in order; memory holds one window.

    Args:
      file: a seekable staged packet file; other packet runs may be read meanwhile only through
        handles of their own.
      packet_run: where it begins, and how many packets it has.
    """
    file.seek(packet_run.file_offset_bytes)
    left = packet_run.packet_count
    while left > 0:
        records, payload = _read_array(file), _read_array(file)
        left -= len(records)
        yield PacketWindow(records=records, payload=payload)


def _read_array(file: BinaryIO) -> npt.NDArray[Any]:
    """Reads an array of one dimension.

    NumPy's own reader goes round the file's buffer, and reads what is in it twice.
    """
    np.lib.format.read_magic(file)
    (count,), _, dtype = np.lib.format.read_array_header_1_0(file)
    return np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype, count=count)


def dump_index(index: PartIndex) -> bytes:
    """Returns a part's index as JSON."""
    return json.dumps(asdict(index), separators=(",", ":")).encode()


def load_index(text: bytes) -> PartIndex:
    """Returns what `dump_index` wrote."""
    data = json.loads(text)
    data["counts"] = PacketCounts(**data["counts"])
    data["packet_runs"] = tuple(
        StagedPacketRun(**{**packet_run, "clock": _load_clock(packet_run["clock"])})
        for packet_run in data["packet_runs"]
    )
    data["dumps"] = tuple(_load_dump(dump) for dump in data["dumps"])
    data["codec"] = Codec(data["codec"])
    return PartIndex(**data)


def on_call_clocks(index: PartIndex, server: ServerClock) -> PartIndex:
    """Returns an index with the clocks of its packet runs on the clock of its call.

    Times of dumps stay as the server wrote them.
    """
    if server.is_calls:
        return index
    found = []
    for packet_run in index.packet_runs:
        clock, doubt_ns = on_call_clock(packet_run.clock, server)
        found.append(replace(packet_run, clock=clock, server_doubt_ns=doubt_ns))
    return replace(index, packet_runs=tuple(found))


def _load_dump(data: dict[str, Any]) -> StagedDump:
    arrivals = data["arrivals_unix_ns"]
    return StagedDump(
        **{
            **data,
            "claim": SegmentClaim(**data["claim"]),
            "ends": DumpEnds(**data["ends"]),
            "arrivals_unix_ns": None if arrivals is None else tuple(arrivals),
            "fates": {Fate(fate): count for fate, count in data["fates"].items()},
            "told": tuple(map(Fate, data["told"])),
        }
    )


def _load_clock(data: dict[str, Any]) -> PacketRunClock:
    plateaus = tuple(
        Plateau(
            **{
                **plateau,
                "hull": tuple((x, y) for x, y in plateau["hull"]),
                "evidence": StepEvidence(plateau["evidence"]),
                "mean_floor": plateau["mean_floor"] and tuple(plateau["mean_floor"]),
                "ends": tuple((x, y) for x, y in plateau["ends"]),
            }
        )
        for plateau in data["plateaus"]
    )
    rate = data["report_rate"] and tuple(data["report_rate"])
    method = ClockMethod(data["method"])
    return PacketRunClock(**{**data, "plateaus": plateaus, "method": method, "report_rate": rate})
