"""What becomes of each record of a dump: exactly one fate, so that nothing falls between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Fate(StrEnum):
    """What became of a record. The catalog has a column `records_<fate>` for each."""

    PLACED = "placed"
    """Its audio is on the time line of a file."""
    DUPLICATE = "duplicate"
    """The same packet came before: source, number, time stamp and payload are equal."""
    ELSEWHERE = "elsewhere"
    """Its audio is on the time line already, from another dump, archive or source."""
    CONTROL = "control"
    """RTCP: reports, no audio."""
    PADDING = "padding"
    """A packet without payload, or a RED packet without a primary block."""
    COMFORT_NOISE = "comfort_noise"
    """A level of noise (RFC 3389), no sound that was recorded."""
    SIGNALLING = "signalling"
    """A payload type that the session description names as no audio codec: telephone events (RFC
    4733), retransmission (RFC 4588), forward error correction. Or one that nothing names, at a time
    that audio of the same source covers: it takes a number, and no time.
    """
    FOREIGN = "foreign"
    """A payload type that nothing names as the track's own."""
    INVALID = "invalid"
    """No RTP by its header, cut short by the capture, or no Opus inside."""
    CONFLICTING = "conflicting"
    """The number of a packet that was there already, with other content."""
    TOO_LATE = "too_late"
    """Its time on the line is filled by other audio."""
    OUTSIDE_LIMITS = "outside_limits"
    """Past a limit: sources, packet runs or hours."""
    REFUSED = "refused"
    """Of a dump or track of which nothing was made; a failure says why."""


AUDIO_MISSING = (
    Fate.FOREIGN,
    Fate.INVALID,
    Fate.CONFLICTING,
    Fate.TOO_LATE,
    Fate.OUTSIDE_LIMITS,
    Fate.REFUSED,
)
"""Fates of what came, may be audio, and is in no file."""
FATES = tuple(Fate)
_CODE = {fate: code for code, fate in enumerate(FATES, 1)}
_OPEN = 0

FateCounts = Mapping[Fate, int]


def no_fates(count: int) -> npt.NDArray[np.uint8]:
    """Returns an array for the fates of packets, all still open; shape (count,)."""
    return np.full(count, _OPEN, dtype=np.uint8)


def settle(fates: npt.NDArray[np.uint8], which: object, fate: Fate) -> None:
    """Sets the fate of those packets that have none yet, in place.

    Args:
      fates: of all packets.
      which: an index of the array: places or a mask.
      fate: what became of them.
    """
    mine = fates[which]  # type: ignore[call-overload]
    fates[which] = np.where(mine == _OPEN, _CODE[fate], mine)  # type: ignore[call-overload]


def is_open(fates: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Returns which packets have no fate yet."""
    mask: npt.NDArray[np.bool_] = fates == _OPEN
    return mask


def reopen(fates: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> None:
    """Takes back what was said of some packets, in place."""
    fates[places] = _OPEN


def places_of(fates: npt.NDArray[np.uint8], fate: Fate) -> npt.NDArray[np.int64]:
    """Returns which packets have a fate, rising."""
    return np.flatnonzero(fates == _CODE[fate])


def count_of(fates: npt.NDArray[np.uint8], fate: Fate) -> int:
    """Returns how many packets have a fate."""
    return int(np.count_nonzero(fates == _CODE[fate]))


@dataclass(slots=True)
class Tally:
    """Counts the records of one dump, and what became of each."""

    records: int = 0
    """Framed so far."""
    fates: dict[Fate, int] = field(default_factory=dict)

    def add(self, fate: Fate, count: int) -> None:
        """Counts records of one fate."""
        if count:
            self.fates[fate] = self.fates.get(fate, 0) + int(count)

    def add_all(self, fates: npt.NDArray[np.uint8]) -> None:
        """Counts packets whose fates are in an array; none may be open."""
        counts = np.bincount(fates, minlength=len(FATES) + 1).tolist()
        assert not counts[_OPEN], f"{counts[_OPEN]} packets without a fate"
        for fate, count in zip(FATES, counts[1:], strict=True):
            self.add(fate, count)

    def move(self, source: Fate, target: Fate, count: int) -> None:
        """Counts records otherwise than before."""
        self.add(source, -count)
        self.add(target, count)

    def refuse_rest(self) -> None:
        """Counts all records that have no fate as those of a dump of which nothing is made."""
        self.add(Fate.REFUSED, self.records - sum(self.fates.values()))

    def check(self) -> None:
        """Makes sure that every record has one fate. Raises: AssertionError: a bug."""
        total = sum(self.fates.values())
        assert total == self.records, f"{self.records} records, {total} fates"
