"""What all timing metadata of one participant session say together: one session's may be split over
several members of an archive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from transforms.media import caps
from transforms.media.errors import ArchiveError, TimingMetadataError
from transforms.media.findings import Findings
from transforms.media.rtp.timing_metadata import SegmentTiming, SessionTiming
from transforms.media.values import (
    OUTPUT_TYPE_OF,
    OutputType,
    SessionKey,
    TrackType,
    segment_stem,
)

_OUTPUT_TYPES = {str(track): output for track, output in OUTPUT_TYPE_OF.items()}
_NOT_SET = ("", "TRACK_TYPE_UNSPECIFIED")
"""What the vendor's enumeration has for a type that nobody set, and an absent field."""
_VIDEO_TYPES = ("TRACK_TYPE_VIDEO", "TRACK_TYPE_SCREEN_SHARE")


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
    def stem(self) -> str:
        """Its `base_filename` without the suffix of a dump."""
        return segment_stem(self.timing.base_filename)

    @property
    def dump_member(self) -> str:
        """What the segment's dump is called in messages."""
        return f"{self.stem}.rtpdump"


def list_segments(timings: Iterable[SessionTiming]) -> Iterator[ListedSegment]:
    """Yields all segments that metadata lists, of whatever kind."""
    for timing in timings:
        for segment in (*timing.audio, *timing.video):
            yield ListedSegment(timing=segment, metadata_member=timing.member)


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

    What a segment is goes by its track type, in whichever list it stands. One whose type is not
    set is the participant's audio where its codec is, which is a finding too.
    """
    by_output: dict[OutputType, dict[str, ListedSegment]] = {}
    others: list[ListedSegment] = []
    untyped: list[ListedSegment] = []
    for timing in timings:
        audio = len(timing.audio)
        for number, segment in enumerate((*timing.audio, *timing.video)):
            listed = ListedSegment(timing=segment, metadata_member=timing.member)
            output_type = _OUTPUT_TYPES.get(segment.track_type)
            if output_type is not None:
                # Listed twice, in one list or in both, it is one segment: its dump is there once.
                first = by_output.setdefault(output_type, {}).setdefault(listed.stem, listed)
                if first.timing.times != segment.times:
                    message = (
                        f"{timing.member}: segment {segment.base_filename} is listed by "
                        f"{first.metadata_member} too, with other times; that one was taken"
                    )
                    findings.add(
                        TimingMetadataError(message, member=timing.member),
                        timing.session.track(output_type),
                    )
            elif segment.track_type in _NOT_SET and _may_be_audio(segment, number < audio):
                untyped.append(listed)
            else:
                others.append(listed)
                is_video = segment.is_video_by_codec or segment.track_type in _VIDEO_TYPES
                if segment.is_audio_by_codec or (number < audio and not is_video):
                    message = _unexpected_type(listed)
                    findings.add(ArchiveError(message, member=timing.member), timing.session)
    typed = {stem for segments in by_output.values() for stem in segments}
    for listed in untyped:
        if listed.stem in typed:
            continue
        session = timings[0].session
        message = f"{_unexpected_type(listed)}; taken for the former by its codec"
        findings.add(
            ArchiveError(message, member=listed.metadata_member),
            session.track(OutputType.AUDIO_ONLY),
        )
        by_output.setdefault(OutputType.AUDIO_ONLY, {}).setdefault(listed.stem, listed)
    return {
        output_type: sorted(
            segments.values(), key=lambda s: (s.timing.first_rtp_unix_ms or 0, s.base_filename)
        )
        for output_type, segments in sorted(by_output.items())
    }, others


def _may_be_audio(segment: SegmentTiming, is_listed_as_audio: bool) -> bool:
    """Whether a segment is audio as far as its codec tells, or else the list that it stands in."""
    return segment.is_audio_by_codec or (is_listed_as_audio and not segment.is_video_by_codec)


def _unexpected_type(listed: ListedSegment) -> str:
    return (
        f"{listed.metadata_member}: segment {listed.base_filename} has track_type "
        f"{listed.timing.track_type[: caps.MAX_VALUE_CHARACTERS_SHOWN]!r}, expected "
        f"{TrackType.AUDIO} or {TrackType.SCREEN_SHARE_AUDIO}"
    )
