"""Packets as a dump holds them, built by the column instead of one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.builders import CALL_START_UNIX_MS, NTP_UNIX_SECONDS, make_rtpdump
from tests.support.simulation.sender import Ints, Reals, Sender


@dataclass(frozen=True)
class Records:
    """Packets as a dump holds them: the first 12 bytes of each, and which body follows."""

    arrival_s: Reals
    head: npt.NDArray[np.uint8]
    body: Ints
    is_rtcp: npt.NDArray[np.bool_]


def write_numbers(head: npt.NDArray[np.uint8], first: int, width: int, values: Ints) -> None:
    """Writes big-endian numbers, cut to their field as a wrap does."""
    for place in range(width):
        head[:, first + place] = (values >> 8 * (width - 1 - place)) & 0xFF


def whole_packets(
    times: Sequence[float], packets: Sequence[bytes], bodies: list[bytes], *, is_rtcp: bool
) -> Records:
    """Returns packets as they are, and adds what follows their first 12 bytes to `bodies`."""
    head = np.array([list(packet[:12]) for packet in packets], dtype=np.uint8).reshape(-1, 12)
    body = len(bodies) + np.arange(len(packets), dtype=np.int64)
    bodies.extend(packet[12:] for packet in packets)
    return Records(np.array(times, dtype=np.float64), head, body, np.full(len(packets), is_rtcp))


def _ahead_s(sender: Sender, call_s: Reals) -> Reals:
    """Returns by how much the server's clock is ahead of the call's at moments of the call."""
    ahead_s = np.full(len(call_s), sender.server_ahead_s)
    for at, size in sender.server_steps:
        ahead_s += np.where(call_s >= at, size, 0.0)
    return ahead_s


def write_dump(
    sender: Sender, parts: Sequence[Records], bodies: Sequence[bytes]
) -> tuple[bytes, dict[str, Any]]:
    """Returns the dump and what the metadata states of it."""
    arrival_s = np.concatenate([part.arrival_s for part in parts])
    order = np.argsort(arrival_s, kind="stable")
    is_rtcp = np.concatenate([part.is_rtcp for part in parts])[order]
    body = np.concatenate([part.body for part in parts])[order]
    head = np.concatenate([part.head for part in parts])[order]
    # Whole ms of the server's clock, floored, counted from when the sender began.
    call_s = sender.start_s + arrival_s[order]
    written_s = CALL_START_UNIX_MS / 1000 + call_s + _ahead_s(sender, call_s)
    unix_ms = np.floor(written_s * 1000 + 1e-4).astype(np.int64)
    begin_s = sender.start_s + float(_ahead_s(sender, np.array([sender.start_s]))[0])
    start_ms = CALL_START_UNIX_MS + int(begin_s * 1000)
    offsets = np.zeros_like(unix_ms) if sender.zero_offsets else unix_ms - start_ms
    sizes = np.array([len(data) for data in bodies], dtype=np.int64)[body]
    lengths = np.concatenate([[0], np.cumsum(sizes + 20)])
    out = np.zeros(int(lengths[-1]), dtype=np.uint8)
    record = np.zeros((len(body), 20), dtype=np.uint8)
    write_numbers(record, 0, 2, sizes + 20)
    write_numbers(record, 2, 2, np.where(is_rtcp, 0, sizes + 12))
    write_numbers(record, 4, 4, offsets)
    record[:, 8:] = head
    out[lengths[:-1, None] + np.arange(20)] = record
    blob = np.frombuffer(b"".join(bodies), dtype=np.uint8)
    begins = np.cumsum([0, *(len(data) for data in bodies)])[:-1][body]
    ends = np.cumsum(sizes)
    out[np.repeat(lengths[:-1] + 20 - (ends - sizes), sizes) + np.arange(int(ends[-1]))] = blob[
        np.repeat(begins - (ends - sizes), sizes) + np.arange(int(ends[-1]))
    ]
    timing: dict[str, Any] = {}
    rtp, rtcp = np.flatnonzero(~is_rtcp), np.flatnonzero(is_rtcp)
    names = (("first", 0), ("last", -1)) if sender.with_last_rtp else (("first", 0),)
    for name, place in names:
        timing[f"{name}_rtp_rtp_timestamp"] = int.from_bytes(head[rtp[place], 4:8].tobytes(), "big")
        timing[f"{name}_rtp_unix_timestamp"] = int(unix_ms[rtp[place]])
    for name, place in (("first", 0), ("last", -1)) if rtcp.size else ():
        report = head[rtcp[place]].tobytes() + bodies[body[rtcp[place]]]
        ntp_ms = (int.from_bytes(report[8:16], "big") * 1000 >> 32) - NTP_UNIX_SECONDS * 1000
        timing[f"{name}_rtcp_rtp_timestamp"] = int.from_bytes(report[16:20], "big")
        timing[f"{name}_rtcp_ntp_timestamp"] = ntp_ms
    return make_rtpdump(start_ms * 1000, []) + out.tobytes(), timing
