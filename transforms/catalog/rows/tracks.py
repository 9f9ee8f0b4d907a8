"""Rows of `tracks`."""

from __future__ import annotations

from transforms.catalog.rows.ids import track_ids
from transforms.catalog.rows.recordings import archives_of
from transforms.context import VERSION
from transforms.elements import Row, Status, TrackSource
from transforms.media.extract_track import TrackStats
from transforms.media.mix_call import TrackSoundStats
from transforms.media.units import NS_PER_MS, SAMPLES_PER_MS
from transforms.media.values import TRACK_TYPE_OF, TrackKey


def track_failed_row(track: TrackKey, status: Status) -> Row:
    """Returns the row of a track of which nothing was made: it failed, or nothing was sent."""
    counts = ("segment_count", "packets_expected", "packets_received", "media_ms", "duration_ms")
    return {
        **track_ids(track),
        "track_type": TRACK_TYPE_OF[track.output_type],
        "status": status,
        "callpress_version": VERSION,
        "part": 0,
        **(dict.fromkeys(counts, 0) if status == Status.EMPTY else {}),
    }


def track_row(source: TrackSource, stats: TrackStats) -> Row:
    """Returns the row of one of a track's files, less what only its sound can tell."""
    methods = sorted({segment.clock_method for segment in stats.segments})
    longest = max(
        stats.segments, key=lambda segment: segment.file_stop_sample - segment.file_start_sample
    )
    return {
        **track_ids(source.track),
        "track_type": TRACK_TYPE_OF[source.track.output_type],
        "status": Status.OK,
        "callpress_version": VERSION,
        "channels": stats.channels,
        "archive_uris": archives_of(source, stats),
        "track_ids": list(stats.track_ids),
        "ssrcs": list(stats.ssrcs),
        "codec": stats.codec,
        "audio_bandwidth_hz": stats.audio_bandwidth_hz or None,
        **(_counts(stats) if not stats.lane else {}),
        "silence_ms": round(stats.hole_samples / SAMPLES_PER_MS),
        "dtx_ms": round(stats.dtx_samples / SAMPLES_PER_MS),
        "media_ms": round(stats.media_samples / SAMPLES_PER_MS),
        "duration_ms": round(stats.duration_samples / SAMPLES_PER_MS),
        "offset_ms": round((stats.begin_unix_ns - source.timeline_start_unix_ns) / NS_PER_MS),
        "clock_method": methods[0] if len(methods) == 1 else "mixed",
        "clock_skew_ppm": longest.clock_skew_ppm,
        "sync_error_ms": max(segment.sync_error_ns for segment in stats.segments) / NS_PER_MS,
        "jitter_ms": stats.jitter_ms,
        "part": stats.lane,
    }


def _counts(stats: TrackStats) -> Row:
    """Returns what the dumps of a track tell, for all its files together."""
    counts = stats.counts
    return {
        "segment_count": stats.segment_count,
        "packets_expected": counts.expected,
        "packets_received": counts.received,
        "packets_lost": counts.lost,
        "packets_duplicate": counts.duplicate,
        "packets_reordered": counts.reordered,
        "packets_invalid": counts.invalid,
        "packets_recovered_red": counts.recovered_red,
    }


def add_sound(row: Row, sound: TrackSoundStats) -> None:
    """Fills the columns that only the decoded sound can tell, in place."""
    repairs, speech = sound.repairs, sound.speech
    repaired_samples = repairs.concealed_samples + repairs.fec_samples
    speech_samples = int((speech.file_stop_sample - speech.file_start_sample).sum())
    row.update(
        packets_recovered_fec=repairs.fec_packets,
        concealed_ms=round(repairs.concealed_samples / SAMPLES_PER_MS),
        silence_ms=max(0, row["silence_ms"] - round(repaired_samples / SAMPLES_PER_MS)),
        loudness_lufs=sound.loudness_lufs,
        peak_dbfs=sound.peak_dbfs,
        speech_ms=None if sound.is_encrypted else round(speech_samples / SAMPLES_PER_MS),
    )
