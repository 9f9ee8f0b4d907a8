"""Hands the dumps and descriptions of an archive to the segments that timing metadata lists."""

from __future__ import annotations

import time

from transforms.media.archive.read_members import ArchiveMembers, Dump
from transforms.media.errors import ArchiveError, CodecProcessError, RecordingError
from transforms.media.findings import Findings
from transforms.media.rtp.participant_sessions import ListedSegment
from transforms.media.rtp.sdp import RtpMap
from transforms.media.settings import LimitSettings
from transforms.media.values import TrackKey


class Claims:
    """Gives each dump to one segment, until the time for the archive is over, and knows what no
    segment has asked for.
    """

    def __init__(self, members: ArchiveMembers, limits: LimitSettings, deadline: float) -> None:
        """Args: deadline: on the clock of `time.monotonic`; from then on no dump is given."""
        self._members = members
        self._limits = limits
        self._deadline = deadline
        self._is_late = False
        self._claimed_dumps: set[str] = set()
        self._claimed_descriptions: set[str] = set()

    def pass_over(self, segment: ListedSegment) -> None:
        """Takes a segment's dump as asked for, though nobody reads it."""
        path = self._members.dumps.find(segment.base_filename, segment.metadata_member)
        if path is not None:
            self._claimed_dumps.add(path)

    def claim_dump(self, segment: ListedSegment) -> Dump:
        """Returns a segment's dump, from now on this segment's only.

        Raises:
          ArchiveError: the archive does not have it, or another segment has.
          CodecProcessError: the time for the archive is over.
        """
        member = segment.dump_member
        path = self._members.dumps.find(segment.base_filename, segment.metadata_member)
        if path is None:
            raise ArchiveError(
                f"{member}: not in the archive, listed by {segment.metadata_member}", member=member
            )
        if path in self._claimed_dumps:
            raise ArchiveError(
                f"{member}: listed again by {segment.metadata_member}, expected one session to "
                "have it",
                member=member,
            )
        if time.monotonic() > self._deadline:
            self._is_late = True
            raise CodecProcessError(
                f"{member}: not reached, unpacking took more than "
                f"{self._limits.max_archive_seconds} s (limits.max_archive_seconds)",
                member=member,
            )
        self._claimed_dumps.add(path)
        return self._members.dumps[path]

    def read_description(
        self, segment: ListedSegment, track: TrackKey, findings: Findings
    ) -> dict[int, RtpMap]:
        """Returns what a segment's session description maps; nothing, and a finding of the track,
        when it is not there or cannot be read.
        """
        descriptions = self._members.descriptions
        path = descriptions.find(segment.base_filename, segment.metadata_member)
        if path is None:
            member = f"{segment.base_filename}.sdp"
            message = (
                f"{member}: not in the archive, the codec was taken from {segment.metadata_member}"
            )
            findings.add(ArchiveError(message, member=member), track)
            return {}
        self._claimed_descriptions.add(path)
        found = descriptions[path]
        if isinstance(found, RecordingError):
            findings.add(found, track)
            return {}
        return found

    def tell_unclaimed(self, findings: Findings) -> None:
        """Tells of what no segment has asked for: dumps, and descriptions that are damaged."""
        descriptions, dumps = self._members.descriptions, self._members.dumps
        for path in sorted(set(descriptions) - self._claimed_descriptions):
            found = descriptions[path]
            # Damage of the archive is told; what a description says matters to its segment only.
            if isinstance(found, ArchiveError):
                findings.add(found)
        for path in sorted(set(dumps) - self._claimed_dumps):
            finding = dumps[path].finding
            if finding is not None:
                findings.add(finding)
            elif not self._is_late:
                message = (
                    f"{path}.rtpdump: no timing metadata lists this dump, expected a segment with "
                    "its base_filename"
                )
                findings.add(ArchiveError(message, member=f"{path}.rtpdump"))
