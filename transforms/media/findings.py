"""What `media` says is wrong with an archive: an error, and whose audio it is about.

A finding costs what it is about and no more: the rest of the archive is used. Whoever asked for the
work makes rows of the findings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from transforms.media import caps
from transforms.media.errors import RecordingError
from transforms.media.values import SessionKey, TrackKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    error: RecordingError
    owner: SessionKey | TrackKey | None = None
    """The participant session or track it is about; None when that is not known, or it is about the
    archive.
    """


class Findings:
    """Collects findings: each thing once, and of a flood of one kind the first ones."""

    def __init__(self) -> None:
        self._found: dict[object, Finding] = {}
        self._counts: Counter[type[RecordingError]] = Counter()

    def add(self, error: RecordingError, owner: SessionKey | TrackKey | None = None) -> None:
        """Adds a finding. Args: owner: whose it is, where that is known."""
        kind = type(error)
        what = (kind, error.message, error.member, error.byte_offset, owner)
        if what in self._found:
            return
        self._counts[kind] += 1
        if self._counts[kind] <= caps.MAX_FINDINGS_OF_A_KIND:
            # A copy: an error that was raised holds all that the functions it went through held.
            copy = kind(
                error.message,
                member=error.member,
                byte_offset=error.byte_offset,
                lacks_segment=error.lacks_segment,
            )
            self._found[what] = Finding(error=copy, owner=owner)

    def all(self) -> tuple[Finding, ...]:
        """Returns the findings, and one more for each kind of which there were too many."""
        more = [
            Finding(
                error=kind(
                    f"{count - caps.MAX_FINDINGS_OF_A_KIND} more of this kind in the archive, "
                    "not told one by one"
                )
            )
            for kind, count in self._counts.items()
            if count > caps.MAX_FINDINGS_OF_A_KIND
        ]
        return (*self._found.values(), *more)
