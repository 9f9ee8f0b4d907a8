"""What of a packet run lies on one time line, where that is not all of it, and how it is read.

Two archives may hold the same packets, each with losses of its own; and where two sounds come at
once, not all packets of a packet run can lie on the line that has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media.track.staged_packets import PacketWindow, StagedPacketRun, read_packet_run
from transforms.media.units import Bytes, Ints

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """Packets that a packet run lacks and another recording of the same packets has."""

    part: int
    """Index of the part the other packet run is in."""
    packet_run: StagedPacketRun
    taken: Bools
    """Which of its packets; shape (packets,)."""
    first_media_sample: int
    """Where the first of them begins, in the media time of the packet run that is mended."""
    shift_samples: int
    """Media time there, less that in the other."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Share:
    """What of a packet run is placed on one time line."""

    kept: Bools
    """Which of its packets, at least one; shape (packets,)."""
    first_media_sample: int
    """Where the first of them begins in media time."""
    patches: tuple[Patch, ...] = ()
    """In holes of the packet run."""


def read_share(
    file: BinaryIO,
    packet_run: StagedPacketRun,
    share: Share | None,
    open_packets: Callable[[int], BinaryIO],
) -> Iterator[tuple[PacketWindow, Bools]]:
    """Yields the packets of a packet run that are placed, and which of them follow on one that is
    not.

    Memory holds one window, and a file and a window more for each patch at that time.

    Args:
      file: the staged packets of its part.
      packet_run: which.
      share: what of it; None for all.
      open_packets: opens the staged packets of a part, by its index.
    """
    if share is None:
        for window in read_packet_run(file, packet_run):
            yield window, np.zeros(len(window.records), dtype=np.bool_)
        return
    patches = [_PatchReader(patch, open_packets) for patch in share.patches]
    try:
        first, was_kept = 0, True
        for window in read_packet_run(file, packet_run):
            kept = share.kept[first : first + len(window.records)]
            begins = kept & ~np.concatenate([[was_kept], kept[:-1]])
            first, was_kept = first + len(kept), bool(kept[-1])
            stop_sample = int(window.records["media_sample"][-1])
            window, begins = _picked(window, kept), begins[kept]
            more = [found for patch in patches for found in patch.take(stop_sample)]
            yield _mended(window, begins, more) if more else (window, begins)
    finally:
        for patch in patches:
            patch.close()


class _PatchReader:
    """Hands out the packets of a patch as the media time of the mended packet run goes on."""

    def __init__(self, patch: Patch, open_packets: Callable[[int], BinaryIO]) -> None:
        self._patch = patch
        self._open_packets = open_packets
        self._file: BinaryIO | None = None
        self._windows = self._read()
        self._ahead: PacketWindow | None = None

    def _read(self) -> Iterator[PacketWindow]:
        self._file = self._open_packets(self._patch.part)
        first = 0
        for window in read_packet_run(self._file, self._patch.packet_run):
            taken = self._patch.taken[first : first + len(window.records)]
            first += len(taken)
            if taken.any():
                picked = _picked(window, taken)
                records = picked.records.copy()
                records["media_sample"] += self._patch.shift_samples
                yield PacketWindow(records=records, payload=picked.payload)
        self.close()

    def take(self, stop_sample: int) -> Iterator[PacketWindow]:
        """Yields what begins before `stop_sample` and was not handed out yet."""
        if self._patch.first_media_sample >= stop_sample:
            return
        while True:
            window = self._ahead or next(self._windows, None)
            self._ahead = None
            if window is None:
                return
            is_due = window.records["media_sample"] < stop_sample
            if not is_due.all():
                self._ahead = _picked(window, ~is_due)
                if is_due.any():
                    yield _picked(window, is_due)
                return
            yield window

    def close(self) -> None:
        """Closes its file."""
        if self._file is not None:
            self._file.close()


def _picked(window: PacketWindow, which: Bools) -> PacketWindow:
    """Returns some packets of a window."""
    if which.all():
        return window
    sizes = window.records["packet_bytes"].astype(np.int64)
    return PacketWindow(
        records=window.records[which], payload=window.payload[np.repeat(which, sizes)]
    )


def _mended(
    window: PacketWindow, begins: Bools, more: Sequence[PacketWindow]
) -> tuple[PacketWindow, Bools]:
    """Returns a window with other packets in the holes between its own."""
    records = np.concatenate([window.records, *(each.records for each in more)])
    payload = np.concatenate([window.payload, *(each.payload for each in more)])
    is_own = np.arange(len(records)) < len(window.records)
    order = np.argsort(records["media_sample"], kind="stable")
    sizes = records["packet_bytes"].astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    records, is_own = records[order], is_own[order]
    begins = np.concatenate([begins, np.zeros(len(records) - len(begins), dtype=np.bool_)])[order]
    _count_what_is_still_lost(records, is_own)
    return PacketWindow(
        records=records, payload=_gathered(payload, starts[order], sizes[order])
    ), begins


def _count_what_is_still_lost(records: npt.NDArray[np.void], is_own: Bools) -> None:
    """Takes what was found off the packets lost before each, in place; the rest is said wherever
    time is missing.
    """
    own = np.flatnonzero(is_own)
    before = np.concatenate([[-1], own[:-1]]) if len(own) else own
    media = records["media_sample"].astype(np.int64)
    ends = media + records["duration_samples"]
    is_gap = np.concatenate([[True], media[1:] > ends[:-1]])
    for last, at in zip(before.tolist(), own.tolist(), strict=True):
        found = at - last - 1
        if found:
            still = max(0, int(records["lost_before"][at]) - found)
            hole = slice(last + 1, at + 1)
            records["lost_before"][hole] = np.where(is_gap[hole], still, 0)


def _gathered(payload: Bytes, starts: Ints, sizes: Ints) -> Bytes:
    """Returns packets end to end in another order."""
    places = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    gathered: Bytes = payload[places]
    return gathered
