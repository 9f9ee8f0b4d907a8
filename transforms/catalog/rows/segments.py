"""Rows of `segments`."""

from __future__ import annotations

from transforms.catalog.rows.ids import track_ids
from transforms.elements import Row, TrackSource
from transforms.media.extract_track import TrackStats
from transforms.media.lane_file import FileSegment
from transforms.media.units import NS_PER_MS, SAMPLES_PER_MS


def segment_rows(source: TrackSource, stats: TrackStats) -> list[Row]:
    """Returns a row for each part of a track's file that lies on one straight line of its clock."""
    return [{**_segment_row(source, segment), "part": stats.lane} for segment in stats.segments]


def _segment_row(source: TrackSource, segment: FileSegment) -> Row:
    zero = source.timeline_start_unix_ns
    return {
        **track_ids(source.track),
        "track_id": segment.track_id,
        "archive_uri": source.parts[segment.part].archive_uri,
        "base_filename": segment.base_filename,
        "ssrc": segment.ssrc,
        "file_start_ms": round(segment.file_start_sample / SAMPLES_PER_MS),
        "file_end_ms": round(segment.file_stop_sample / SAMPLES_PER_MS),
        "call_start_ms": round((segment.server_start_unix_ns - zero) / NS_PER_MS),
        "call_end_ms": round((segment.server_stop_unix_ns - zero) / NS_PER_MS),
        "clock_method": segment.clock_method,
        "clock_skew_ppm": segment.clock_skew_ppm,
        "sync_error_ms": segment.sync_error_ns / NS_PER_MS,
        "gap_before": segment.gap_before,
    }
