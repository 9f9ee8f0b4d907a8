"""What all timing metadata of one participant session say together: one session's may be split over
several members of an archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transforms.media import caps
from transforms.media.errors import ArchiveError, TimingMetadataError
from transforms.media.findings import Findings
from transforms.media.rtp.timing_metadata import SegmentTiming, SessionTiming
from transforms.media.values import OUTPUT_TYPE_OF, OutputType, SessionKey, TrackType


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSegment:
    """A segment, and the metadata that lists it."""

    timing: SegmentTiming
    metadata_member: str

    @property
    def base_filename(self) -> str:
        """As the metadata spells it."""
        return self.timing.base_filename

    @property
    def dump_member(self) -> str:
        """What the segment's dump is called in messages."""
        return f"{self.timing.base_filename}.rtpdump"


def group_by_session(timings: Sequence[SessionTiming]) -> dict[SessionKey, list[SessionTiming]]:
    """Returns the metadata of each participant session, in the order of the archive."""
    found: dict[SessionKey, list[SessionTiming]] = {}
    for timing in timings:
        found.setdefault(timing.session, []).append(timing)
    return found


def call_start_unix_ns(timings: Sequence[SessionTiming], findings: Findings) -> int | None:
    """Returns when the call began by a session's metadata, None when they do not say.

    The earliest counts where members contradict each other, which is a finding.
    """
    stated = sorted(
        (timing for timing in timings if timing.call_start_unix_ns is not None),
        key=lambda t: t.call_start_unix_ns or 0,
    )
    if not stated:
        return None
    first, last = stated[0], stated[-1]
    apart_ns = (last.call_start_unix_ns or 0) - (first.call_start_unix_ns or 0)
    if apart_ns:
        message = (
            f"{last.member}: call_start_time is {apart_ns / 1e9:.3f} s after the one in "
            f"{first.member}, expected the same in all "
            "metadata of a participant session; the earlier was taken"
        )
        findings.add(TimingMetadataError(message, member=last.member), last.session)
    return first.call_start_unix_ns


def segments_by_output(
    timings: Sequence[SessionTiming], findings: Findings
) -> tuple[dict[OutputType, list[ListedSegment]], list[ListedSegment]]:
    """Returns a session's audio segments by what becomes of them, in order of time, and all other
    segments: video, and tracks of an unknown type, which are findings.
    """
    by_output: dict[OutputType, dict[str, ListedSegment]] = {}
    others: list[ListedSegment] = []
    for timing in timings:
        others += [ListedSegment(timing=s, metadata_member=timing.member) for s in timing.video]
        for segment in timing.audio:
            listed = ListedSegment(timing=segment, metadata_member=timing.member)
            try:
                output_type = OUTPUT_TYPE_OF[TrackType(segment.track_type)]
            except ValueError:
                message = (
                    f"{timing.member}: segment {segment.base_filename} has track_type "
                    f"{segment.track_type[: caps.MAX_VALUE_CHARACTERS_SHOWN]!r}, "
                    f"expected {TrackType.AUDIO} or {TrackType.SCREEN_SHARE_AUDIO}"
                )
                findings.add(ArchiveError(message, member=timing.member), timing.session)
                others.append(listed)
                continue
            # Listed twice, it is one segment: its dump is there once.
            by_output.setdefault(output_type, {}).setdefault(segment.base_filename, listed)
    return {
        output_type: sorted(
            segments.values(), key=lambda s: (s.timing.first_rtp_unix_ms or 0, s.base_filename)
        )
        for output_type, segments in sorted(by_output.items())
    }, others
