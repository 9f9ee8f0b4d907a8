"""The staged form of a track's packets: ordered, de-duplicated, RED taken off, in windows of npy arrays.

A file is a row of windows; a window is two arrays in NumPy's npy format, one after the other: records of `PACKET_DTYPE`,
then their Opus packets end to end as bytes. A window never spans two runs, so a run can be read on its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media.model import PacketCounts, PartIndex, Plateau, RunClock, RunIndex, StepEvidence

WINDOW_PACKETS = 4_096
PACKET_DTYPE = np.dtype(
    [
        ("media_sample", "<i8"),  # start, in samples at 48 kHz from the run's first packet
        ("duration_samples", "<i4"),
        ("lost_before", "<i4"),  # packets missing between the one before and this
        ("packet_bytes", "<i4"),
    ]
)
Packet = tuple[int, int, int, bytes]
"""media_sample, duration_samples, lost_before, opus_packet."""


def write_run(
    file: BinaryIO,
    records: npt.NDArray[np.void],
    source: npt.NDArray[np.uint8],
    source_offset: npt.NDArray[np.int64],
) -> None:
    """Appends one run's packets.

    Args:
      file: open for writing, positioned at its end.
      records: of `PACKET_DTYPE`, in the order of the run; shape (packets,).
      source: bytes that hold the packets, e.g. a mapped dump.
      source_offset: index of each packet's first byte in `source`; shape (packets,).
    """
    for start in range(0, len(records), WINDOW_PACKETS):
        window = records[start : start + WINDOW_PACKETS]
        sizes = window["packet_bytes"].astype(np.int64)
        ends = np.cumsum(sizes)
        # One gather for the whole window: byte i of packet k lies at source_offset[k] + i.
        where = np.arange(int(ends[-1])) + np.repeat(source_offset[start : start + len(window)] - (ends - sizes), sizes)
        np.save(file, window, allow_pickle=False)
        np.save(file, source[where], allow_pickle=False)


def read_run(file: BinaryIO, run: RunIndex) -> Iterator[Packet]:
    """Yields one run's packets in order; memory holds one window.

    Args:
      file: a seekable staged packet file; other runs may be read from it between windows only through their own handle.
      run: which run, and where it begins.
    """
    file.seek(run.file_offset_bytes)
    left = run.packet_count
    while left > 0:
        records = np.lib.format.read_array(file, allow_pickle=False)
        payload = np.lib.format.read_array(file, allow_pickle=False).tobytes()
        left -= len(records)
        position = 0
        for media_sample, duration, lost, size in records.tolist():
            yield media_sample, duration, lost, payload[position : position + size]
            position += size


def dump_index(index: PartIndex) -> bytes:
    """Returns a part's index as JSON."""
    return json.dumps(asdict(index), separators=(",", ":")).encode()


def load_index(text: bytes) -> PartIndex:
    """Returns what `dump_index` wrote."""
    data = json.loads(text)
    data["counts"] = PacketCounts(**data["counts"])
    data["runs"] = tuple(RunIndex(**{**run, "clock": _load_clock(run["clock"])}) for run in data["runs"])
    return PartIndex(**data)


def _load_clock(data: dict[str, Any]) -> RunClock:
    plateaus = tuple(
        Plateau(
            **{
                **plateau,
                "hull": tuple((x, y) for x, y in plateau["hull"]),
                "evidence": StepEvidence(plateau["evidence"]),
            }
        )
        for plateau in data["plateaus"]
    )
    return RunClock(**{**data, "plateaus": plateaus})
