"""Hands the dumps and descriptions of an archive to the segments that timing metadata lists."""

from __future__ import annotations

import time
from collections.abc import Sequence

from transforms.media.archive.assign_members import assign_members, name_of
from transforms.media.archive.match_dumps import match_dumps
from transforms.media.archive.read_members import ArchiveMembers, Dump
from transforms.media.errors import ArchiveError, CodecProcessError, RecordingError
from transforms.media.findings import Findings
from transforms.media.rtp.participant_sessions import ListedSegment, list_segments
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
        segments = list(list_segments(members.sessions))
        self._dump_of = assign_members(segments, members.dumps)
        self._description_of = assign_members(segments, members.descriptions, self._dump_of.paths)
        self._listed_dumps: set[str] = set()
        self._claimed_dumps: set[str] = set()
        self._claimed_descriptions: set[str] = set()
        self._by_time: dict[ListedSegment, str] = {}
        self._taken_by_time: set[str] = set()
        self.head_convention_samples = 0

    def dump_of(self, segment: ListedSegment) -> str | None:
        """Returns the path, without its suffix, of a segment's dump; None when there is none."""
        named = self._dump_of.paths.get(name_of(segment))
        by_time = self._by_time.get(segment)
        if by_time is None and named in self._taken_by_time:
            return None
        return by_time or named

    def match_by_time(
        self, audio: Sequence[tuple[TrackKey, ListedSegment]], findings: Findings
    ) -> None:
        """Gives dumps to the segments that they are of by RTP time, whatever their names.

        Args:
          audio: all audio segments of the archive, each with its track.
          findings: dumps that are taken from where their name puts them are added to them.
        """
        dumps = self._members.dumps
        segments = [segment for _, segment in audio]
        named = [self.dump_of(segment) for segment in segments]
        unlisted = sorted(set(dumps) - set(named) - self._listed_dumps)
        paths = {path: file for path in dumps if (file := dumps[path].path) is not None}
        match = match_dumps(segments, named, unlisted, paths)
        self.head_convention_samples = match.head_convention_samples
        for number, path in match.taken.items():
            track, segment = audio[number]
            self._by_time[segment] = path
            self._taken_by_time.add(path)
            member = dumps[path].member
            message = (
                f"{member}: its RTP time stamps are those that {segment.metadata_member} "
                f"claims for {segment.dump_member}, for which it was taken"
            )
            findings.add(ArchiveError(message, member=member), track)

    def pass_over(self, segment: ListedSegment) -> None:
        """Takes a segment's dump as asked for, though nobody reads it."""
        path = self._dump_of.paths.get(name_of(segment))
        if path is not None:
            self._listed_dumps.add(path)

    def claim_dump(self, segment: ListedSegment) -> Dump:
        """Returns a segment's dump, from now on this segment's only.

        Raises:
          ArchiveError: the archive does not have it, or another segment has.
          CodecProcessError: the time for the archive is over.
        """
        member = segment.dump_member
        path, name = self.dump_of(segment), name_of(segment)
        if path is None:
            message = f"{member}: not in the archive, listed by {segment.metadata_member}"
            if name in self._dump_of.unclear:
                message += "; it is not clear which of the dumps of a like name is meant"
            raise ArchiveError(message, member=member, lacks_segment=segment.stem)
        dump = self._members.dumps[path]
        if path in self._claimed_dumps:
            raise ArchiveError(
                f"{dump.member}: listed again by {segment.metadata_member}, expected one session "
                "to have it",
                member=dump.member,
            )
        if time.monotonic() > self._deadline:
            self._is_late = True
            raise CodecProcessError(
                f"{dump.member}: not reached, unpacking took more than "
                f"{self._limits.max_archive_seconds} s (limits.max_archive_seconds)",
                member=dump.member,
            )
        self._listed_dumps.add(path)
        self._claimed_dumps.add(path)
        return dump

    def read_description(
        self, segment: ListedSegment, track: TrackKey, findings: Findings
    ) -> dict[int, RtpMap]:
        """Returns what a segment's session description maps; nothing, and a finding of the track,
        when it is not there or cannot be read.

        That members were taken which are spelled otherwise than the metadata spells them is told
        here, too.
        """
        descriptions, name = self._members.descriptions, name_of(segment)
        if name in self._dump_of.spelled_otherwise:
            found_member = self._members.dumps[self._dump_of.paths[name]].member
            findings.add(_spelled_otherwise(found_member, segment.dump_member, segment), track)
        path = self._description_of.paths.get(name)
        member = f"{segment.stem}.sdp"
        if path is None:
            message = (
                f"{member}: not in the archive, the codec was taken from {segment.metadata_member}"
            )
            error = ArchiveError(message, member=member, lacks_segment=segment.stem)
            findings.add(error, track)
            return {}
        if name in self._description_of.spelled_otherwise:
            findings.add(_spelled_otherwise(f"{path}.sdp", member, segment), track)
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
        for path in sorted(set(dumps) - self._listed_dumps):
            finding = dumps[path].finding
            if finding is not None:
                findings.add(finding)
            elif not self._is_late:
                member = dumps[path].member
                message = (
                    f"{member}: no timing metadata lists this dump, expected a segment with its "
                    "base_filename"
                )
                findings.add(ArchiveError(message, member=member))


def _spelled_otherwise(found: str, expected: str, segment: ListedSegment) -> ArchiveError:
    message = (
        f"{found}: taken for {expected} of {segment.metadata_member}, expected the same case and "
        "Unicode normalisation"
    )
    return ArchiveError(message, member=found)
