"""A random call as values: what was sent and when, what the network did, what was recorded.

Times are ns of true time since the call's start, which no clock of the call shows: a server's is
off by a constant, and may step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from tests.support.worlds.ranges import WorldClass

Ints = npt.NDArray[np.int64]

PACKET = np.dtype(
    [
        ("number", "i8"),  # unique in the world; in the payload
        ("sent_ns", "i8"),  # the end of its last sample
        ("delay_ns", "i8"),  # what path, queue and jitter added
        ("base_ns", "i8"),  # of that, the path's alone
        ("segment", "i4"),
        ("packet_run", "i4"),  # of the session: a source and an origin of its time stamps
        ("dump", "i4"),  # that has it; -1 for lost or not recorded
        ("again_ns", "i8"),  # how much later it came again; 0 for once
        ("ssrc", "u4"),
        ("sequence", "u2"),
        ("timestamp", "u4"),
        ("duration_ms", "u1"),
    ]
)
REPORT = np.dtype(
    [
        ("sent_ns", "i8"),
        ("arrival_ns", "i8"),
        ("wall_ns", "i8"),  # the sender's wall clock, since the call's start
        ("dump", "i4"),  # -1 for lost or not recorded
        ("ssrc", "u4"),
        ("timestamp", "u4"),
    ]
)


class Reports(StrEnum):
    """Where sender reports are."""

    DUMP = "dump"
    """In the dump, the first and the last also in the metadata."""
    PAIRS = "pairs"
    """Only in the metadata."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a session, for those who look at a world."""

    at_ns: int
    what: str
    stop_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What one archive recorded of one segment."""

    archive: int
    server: int
    segment: int
    base_filename: str
    open_ns: int
    """When its file was opened."""
    first_ns: int
    """When its first record arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One participant session."""

    participant_id: str
    reports: Reports
    has_zero_offsets: bool
    skew_ppm: float
    factor: float
    """Ticks of its RTP time stamps by those they should be."""
    packets: npt.NDArray[np.void]
    """Of `PACKET`, in the order in which they were sent."""
    report_rows: npt.NDArray[np.void]
    """Of `REPORT`."""
    dumps: tuple[Dump, ...]
    stalls_ns: tuple[tuple[int, int], ...]
    """When the capture stood, begin and end."""
    events: tuple[Event, ...]

    @property
    def is_beyond(self) -> bool:
        """Whether it is of the class that nobody can know: beyond 500 ppm, under 30 s of media and
        without reports.
        """
        media_ms = int(self.packets["duration_ms"][self.packets["dump"] >= 0].sum(dtype=np.int64))
        return abs(self.skew_ppm) > 500 and media_ms < 30_000 and self.reports == Reports.NONE

    @property
    def ties_servers(self) -> bool:
        """Whether its reports, or its time stamps, tell of the clocks of two servers."""
        reported: set[int] = set()
        runs: dict[int, set[int]] = {}
        for number, dump in enumerate(self.dumps):
            if (self.report_rows["dump"] == number).any() and self.reports != Reports.NONE:
                reported.add(dump.server)
            its = self.packets[self.packets["dump"] == number]
            for ssrc in np.unique(its["ssrc"]).tolist():
                runs.setdefault(ssrc, set()).add(dump.server)
        return len(reported) > 1 or any(len(servers) > 1 for servers in runs.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A whole call."""

    seed: int
    kind: WorldClass
    sessions: tuple[Session, ...]
    archive_count: int
    """Each server writes its own; one without packets is not written."""
    rounds_to_nearest: bool
    """Whether the recorder's metadata has the nearest ms, not the one begun."""
    begins_with_packet: bool
    """Whether a dump's offsets count from its first record, not from when its file was opened."""
    length_ns: int
    server_offset_ns: tuple[int, ...]
    """How far each server's clock is off when the call begins."""
    server_step: tuple[int, int] | None
    """When the first server's clock stepped, and by how much."""

    @property
    def is_tied(self) -> bool:
        """Whether somebody shows how far the clocks of the servers are apart: was on both, with
        sender reports or with numbers that go on.
        """
        used = {dump.server for session in self.sessions for dump in session.dumps}
        return len(used) < 2 or any(session.ties_servers for session in self.sessions)

    def server_ns(self, server: int, true_ns: Ints) -> Ints:
        """Returns what a server's clock showed at some moments, as ns since the call's start."""
        shown: Ints = true_ns + self.server_offset_ns[server]
        if self.server_step is not None and server == 0:
            at_ns, by_ns = self.server_step
            shown = shown + np.where(true_ns >= at_ns, by_ns, 0)
        return shown
