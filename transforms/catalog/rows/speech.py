"""Rows of `speech`."""

from __future__ import annotations

from transforms.catalog.rows.ids import track_ids
from transforms.elements import Row
from transforms.media.sound.voice_activity import SpeechBursts
from transforms.media.units import NS_PER_MS, SAMPLES_PER_MS
from transforms.media.values import TrackKey


def speech_rows(track: TrackKey, part: int, speech: SpeechBursts, zero_unix_ns: int) -> list[Row]:
    """Returns a row for each burst of speech in one of a track's files."""
    ids = {**track_ids(track), "part": part}
    return [
        {
            **ids,
            "start_ms": round((server_start - zero_unix_ns) / NS_PER_MS),
            "end_ms": round((server_stop - zero_unix_ns) / NS_PER_MS),
            "file_start_ms": round(file_start / SAMPLES_PER_MS),
            "file_end_ms": round(file_stop / SAMPLES_PER_MS),
            "level_dbfs": level,
        }
        for server_start, server_stop, file_start, file_stop, level in zip(
            speech.server_start_unix_ns.tolist(),
            speech.server_stop_unix_ns.tolist(),
            speech.file_start_sample.tolist(),
            speech.file_stop_sample.tolist(),
            speech.level_dbfs.tolist(),
            strict=True,
        )
    ]
