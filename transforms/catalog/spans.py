"""Whether the times within a track agree: its file, the segments that map it to the call, and the
speech in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from transforms.catalog.sums import Column, Flags, column, sum_by
from transforms.media.units import SAMPLES_PER_MS, Ints

_TOLERANCE_MS = 1
"""Of times in ms that were rounded each by itself."""
_END_TOLERANCE_MS = 7 + _TOLERANCE_MS
"""How far the last packet of a file may end behind it: a decoder drops 6.5 ms at its beginning."""

Finding = tuple[str, Flags, Callable[[int], str]]
"""The table, which of its rows are wrong, and what is, by the number of a row."""


def check(rows: Mapping[str, pa.Table], track_row: Mapping[str, Ints]) -> Iterator[Finding]:
    """Yields what does not hold.

    Args:
      rows: of a shard, by table.
      track_row: by table, the place in `tracks` of the track that each row is of; -1 for none.
    """
    length = column(rows["tracks"], "duration_ms")
    yield from _check_lengths(rows["recordings"], rows["tracks"], track_row["recordings"])
    yield from _check_segments(rows["segments"], track_row["segments"], length)
    yield _check_audio(rows["segments"], track_row["segments"], rows["tracks"])
    yield from _check_speech(rows["speech"], track_row["speech"], rows["tracks"], length)


def _check_lengths(recordings: pa.Table, tracks: pa.Table, track: Ints) -> Iterator[Finding]:
    length, samples = column(recordings, "duration_ms"), column(recordings, "duration_samples")
    both = length.known & samples.known
    apart = np.abs(length.values * SAMPLES_PER_MS - samples.values) > SAMPLES_PER_MS
    yield (
        "recordings",
        both & apart,
        lambda row: f"duration_ms is {length.values[row]}, of {samples.values[row]} samples",
    )
    yield (
        "recordings",
        samples.known & (samples.values <= 0),
        lambda row: f"its file has {samples.values[row]} samples",
    )
    # A file may be older than its track's row: one that was only measured again.
    of_track = {name: column(tracks, name) for name in ("duration_ms", "created_at")}
    made = column(recordings, "created_at")
    has_track = track >= 0
    place = np.where(has_track, track, 0)
    expected = _taken(of_track["duration_ms"], place)
    together = has_track & (_taken(of_track["created_at"], place).values == made.values)
    yield (
        "recordings",
        together & length.known & expected.known & (length.values != expected.values),
        lambda row: (
            f"duration_ms is {length.values[row]}, that of its track {expected.values[row]}"
        ),
    )


def _check_segments(segments: pa.Table, track: Ints, length: Column) -> Iterator[Finding]:
    found = {
        name: column(segments, name)
        for name in ("file_start_ms", "file_end_ms", "call_start_ms", "call_end_ms")
    }
    start, stop, call_start, call_stop = (each.values for each in found.values())
    known = np.all([each.known for each in found.values()], axis=0)
    yield (
        "segments",
        known & ((stop < start) | (call_stop < call_start) | (start < 0)),
        lambda row: (
            f"it lies from {start[row]} to {stop[row]} ms of its file, from {call_start[row]} to "
            f"{call_stop[row]} ms of its call"
        ),
    )
    order = np.lexsort((stop, start, track))
    after = order[1:]
    before = order[:-1]
    same = (track[after] == track[before]) & (track[after] >= 0) & known[after] & known[before]
    overlaps, goes_back = np.zeros((2, len(start)), dtype=np.bool_)
    overlaps[after] = same & (start[after] < stop[before])
    goes_back[after] = same & (call_start[after] < call_start[before])
    previous = np.zeros(len(start), dtype=np.int64)
    previous[after] = before
    yield (
        "segments",
        overlaps,
        lambda row: (
            f"it begins at {start[row]} ms of its file, the one before ends at "
            f"{stop[previous[row]]} ms"
        ),
    )
    yield (
        "segments",
        goes_back,
        lambda row: (
            f"it begins at {call_start[row]} ms of the call, the one before it in the file at "
            f"{call_start[previous[row]]} ms"
        ),
    )
    yield _check_end("segments", stop, known, track, length)


def _check_audio(segments: pa.Table, track: Ints, tracks: pa.Table) -> Finding:
    """Returns the tracks with more audio, or silence by design, than their segments are long: one
    of these is not there, and nobody knows when it was.
    """
    start, stop = (column(segments, name) for name in ("file_start_ms", "file_end_ms"))
    of_track = track >= 0
    known = start.known & stop.known
    judged = of_track & known
    mapped = sum_by(track[judged], (stop.values - start.values)[judged], tracks.num_rows)
    count = np.bincount(track[judged], minlength=tracks.num_rows)
    unsaid = np.bincount(track[of_track & ~known], minlength=tracks.num_rows)
    media, dtx = column(tracks, "media_ms"), column(tracks, "dtx_ms")
    audio = media.values + dtx.values
    return (
        "tracks",
        media.known & (count > 0) & (unsaid == 0) & (audio - mapped > (count + 2) * _TOLERANCE_MS),
        lambda row: (
            f"media_ms and dtx_ms are {audio[row]} together, its rows of segments give "
            f"{mapped[row]}"
        ),
    )


def _check_speech(
    speech: pa.Table, track: Ints, tracks: pa.Table, length: Column
) -> Iterator[Finding]:
    found = {name: column(speech, name) for name in ("file_start_ms", "file_end_ms")}
    start, stop = (each.values for each in found.values())
    known = np.all([each.known for each in found.values()], axis=0)
    yield (
        "speech",
        known & ((stop < start) | (start < 0)),
        lambda row: f"it lies from {start[row]} to {stop[row]} ms of its file",
    )
    yield _check_end("speech", stop, known, track, length)
    stated = column(tracks, "speech_ms")
    judged = known & (track >= 0)
    total = sum_by(track[judged], (stop - start)[judged], tracks.num_rows)
    count = np.bincount(track[judged], minlength=tracks.num_rows)
    yield (
        "tracks",
        stated.known & (np.abs(stated.values - total) > (count + 1) * _TOLERANCE_MS),
        lambda row: f"speech_ms is {stated.values[row]}, its rows of speech give {total[row]}",
    )


def _check_end(table: str, stop: Ints, known: Flags, track: Ints, length: Column) -> Finding:
    """Returns the rows that end behind the file of their track."""
    has_track = track >= 0
    most = _taken(length, np.where(has_track, track, 0))
    late = has_track & known & most.known & (stop > most.values + _END_TOLERANCE_MS)
    return (
        table,
        late,
        lambda row: f"it ends at {stop[row]} ms of its file, which has {most.values[row]} ms",
    )


def _taken(found: Column, place: Ints) -> Column:
    if not len(found.values):
        return Column(values=np.zeros_like(place), known=np.zeros(len(place), dtype=np.bool_))
    return Column(values=found.values[place], known=found.known[place])
