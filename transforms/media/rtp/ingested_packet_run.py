"""A packet run as a segment's dump gives it, ready to be staged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.media.clock.model import PacketRunClock, ReportPoint
from transforms.media.server_clock import ClockWatch
from transforms.media.units import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedPacketRun:
    """Packets of one SSRC whose numbers and time stamps go on unbroken, and their clock."""

    ssrc: int
    records: npt.NDArray[np.void]
    """Of `PACKET_DTYPE`, in sequence order."""
    source_offset: Ints
    """Where each packet begins in the dump."""
    clock: PacketRunClock
    watch: ClockWatch
    """What it shows of the server's clock."""
    reports: tuple[ReportPoint, ...] = ()
    is_encrypted: bool = False
    """Whether its packets were encrypted end to end, all of them."""


PacketRunObserver = Callable[[IngestedPacketRun, Ints], None]
"""Is shown a packet run and when each packet arrived, in Unix ns: an entry for each record that is
no copy; all are equal where the dump has no arrivals.
"""
PACKET_DTYPE = np.dtype(
    [
        ("media_sample", "<i8"),  # start, in samples at 48 kHz from the first packet
        ("duration_samples", "<i4"),
        ("lost_before", "<i4"),  # packets missing between the one before and this
        ("packet_bytes", "<i4"),
        ("is_copy", "?"),  # only a redundant copy brought it
    ]
)
