"""Rows of `recordings`: one for each media file."""

from __future__ import annotations

from collections.abc import Sequence

from transforms.catalog.rows.ids import call_ids, track_ids
from transforms.context import VERSION
from transforms.elements import CallPlan, ExtractedTrack, Row, TrackSource
from transforms.media.extract_track import TrackStats
from transforms.media.lane_file import MediaFile
from transforms.media.mix_call import MixStats
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, SAMPLES_PER_MS, samples_to_ns
from transforms.media.values import TRACK_TYPE_OF, Container
from transforms.media.wall_time import to_time


def individual_row(source: TrackSource, stats: TrackStats, container: Container, uri: str) -> Row:
    """Returns the row of a track's file, which there must be."""
    assert stats.file is not None
    file, length = stats.file, stats.file.duration_samples
    return {
        **track_ids(source.track),
        "recording_type": "individual",
        "track_type": TRACK_TYPE_OF[source.track.output_type],
        "container": container,
        "codec": "opus",
        "bitrate_bps": file.size_bytes * 8 * SAMPLE_RATE_HZ // length if length > 0 else 0,
        **_file_columns(file, stats.begin_unix_ns, source.timeline_start_unix_ns, uri),
        "archive_uris": archives_of(source, stats),
        "part": stats.lane,
    }


def archives_of(source: TrackSource, stats: TrackStats) -> list[str]:
    """Returns the archives that a track's file comes from, sorted; for the first all of them."""
    if not stats.lane:
        return list(source.archive_uris)
    return sorted({source.parts[segment.part].archive_uri for segment in stats.segments})


def mix_row(plan: CallPlan, mix: MixStats, uri: str, tracks: Sequence[ExtractedTrack]) -> Row:
    """Returns the row of a call's mix."""
    return {
        **call_ids(plan.call),
        "recording_type": "composite",
        "container": "mp3",
        "codec": "mp3",
        "bitrate_bps": mix.bitrate_bps,
        **_file_columns(mix.file, mix.start_unix_ns, plan.timeline_start_unix_ns, uri),
        "archive_uris": sorted({archive for track in tracks for archive in track.archive_uris}),
    }


def _file_columns(file: MediaFile, begin_unix_ns: int, zero_unix_ns: int, uri: str) -> Row:
    """Returns what all media files tell. Args: zero_unix_ns: call time zero."""
    return {
        "filename": uri.rsplit("/", 1)[-1],
        "uri": uri,
        "channels": file.channels,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "start_time": to_time(begin_unix_ns),
        "end_time": to_time(begin_unix_ns + samples_to_ns(file.duration_samples)),
        "duration_ms": round(file.duration_samples / SAMPLES_PER_MS),
        "duration_samples": file.duration_samples,
        "offset_ms": round((begin_unix_ns - zero_unix_ns) / NS_PER_MS),
        "callpress_version": VERSION,
    }
