"""Rows of `tracks`."""

from __future__ import annotations

from transforms.catalog.rows.ids import track_ids
from transforms.elements import Row, TrackSource
from transforms.media.extract_track import TrackStats
from transforms.media.units import NS_PER_MS, SAMPLES_PER_MS
from transforms.media.values import TRACK_TYPE_OF, Status, TrackKey


def track_failed_row(track: TrackKey, status: Status) -> Row:
    """Returns the row of a track of which nothing was made: it failed, or nothing was sent."""
    counts = ("segment_count", "packets_expected", "packets_received", "media_ms", "duration_ms")
    return {
        **track_ids(track),
        "track_type": TRACK_TYPE_OF[track.output_type],
        "status": status,
        **(dict.fromkeys(counts, 0) if status == Status.EMPTY else {}),
    }


def track_row(source: TrackSource, facts: TrackStats) -> Row:
    counts = facts.counts
    methods = sorted({segment.clock_method for segment in facts.segments})
    longest = max(
        facts.segments, key=lambda segment: segment.file_stop_sample - segment.file_start_sample
    )
    return {
        **track_ids(source.track),
        "track_type": TRACK_TYPE_OF[source.track.output_type],
        "status": Status.OK,
        "channels": facts.channels,
        "archive_uris": list(facts.archive_uris),
        "track_ids": list(facts.track_ids),
        "segment_count": facts.segment_count,
        "ssrcs": list(facts.ssrcs),
        "codec": facts.codec,
        "packets_expected": counts.expected,
        "packets_received": counts.received,
        "packets_lost": counts.lost,
        "packets_duplicate": counts.duplicate,
        "packets_reordered": counts.reordered,
        "packets_invalid": counts.invalid,
        "packets_recovered_red": counts.recovered_red,
        "silence_ms": round(facts.hole_samples / SAMPLES_PER_MS),
        "dtx_ms": round(facts.dtx_samples / SAMPLES_PER_MS),
        "media_ms": round(facts.media_samples / SAMPLES_PER_MS),
        "duration_ms": round(facts.duration_samples / SAMPLES_PER_MS),
        "offset_ms": round((facts.begin_unix_ns - source.timeline_start_unix_ns) / NS_PER_MS),
        "clock_method": methods[0] if len(methods) == 1 else "mixed",
        "clock_skew_ppm": longest.clock_skew_ppm,
        "sync_error_ms": max(segment.sync_error_ns for segment in facts.segments) / NS_PER_MS,
        "jitter_ms": facts.jitter_ms,
    }
