"""The catalog's tables: Arrow schemas with a description per column, keys, dates and shards. Reads
and writes no files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from transforms.elements import ReplacedKey, Row
from transforms.media.rtp.fates import Fate

_STRING = pa.string()
_STRINGS = pa.list_(pa.string())
_COUNT = pa.int64()
_MS = pa.int64()
_TIME = pa.timestamp("us", tz="UTC")
_REAL = pa.float64()


def _schema(columns: Mapping[str, tuple[pa.DataType, str]]) -> pa.Schema:
    every = {
        "run_id": (
            _STRING,
            "The run that made this row. One that was killed has no row in `runs`: what it had "
            "finished is taken up.",
        ),
        "created_at": (_TIME, "When this row was made."),
        "settings_fingerprint": (_STRING, "Hash of the settings that change media or rows."),
    }
    return pa.schema(
        [
            pa.field(name, kind, metadata={"description": text})
            for name, (kind, text) in {**columns, **every}.items()
        ]
    )


_CALL = {
    "call_cid": (_STRING, "`call_type:call_id`."),
    "call_type": (_STRING, "The call's type."),
    "call_id": (_STRING, "The call's id; may be used again on another day."),
    "call_session_id": (_STRING, "One session of the call: what is pressed as one."),
}
_SESSION = {
    "participant_id": (_STRING, "The user id; null for the mix."),
    "user_session_id": (_STRING, "One connection of that user; null for the mix."),
}
_OUTPUT = {"output_type": (_STRING, "`audio_only` or `screenshare_audio_only`; null for the mix.")}
_FATES = {
    Fate.PLACED: "Packets whose audio is in a file.",
    Fate.DUPLICATE: "The same packet again: source, number, time stamp and payload are equal.",
    Fate.ELSEWHERE: "Packets whose audio is in a file already, from another dump or source.",
    Fate.CONTROL: "RTCP.",
    Fate.PADDING: "Packets without a payload.",
    Fate.COMFORT_NOISE: "A level of noise (RFC 3389), no recorded sound.",
    Fate.SIGNALLING: "Of a type that the session description names as no audio codec: telephone "
    "events, retransmission, forward error correction. Or of a type that nothing names, where "
    "audio of the same source covers its time.",
    Fate.FOREIGN: "Of a payload type that nothing names as the track's.",
    Fate.INVALID: "No RTP by the header, cut short by the capture, or no Opus inside.",
    Fate.CONFLICTING: "With the number of an earlier packet, and other content.",
    Fate.TOO_LATE: "For a time that other audio fills.",
    Fate.OUTSIDE_LIMITS: "Past a limit: sources, packet runs or hours.",
    Fate.REFUSED: "Of a dump or track of which nothing was made; a failure says why.",
}
_PART = {
    "part": (
        _COUNT,
        "Which of the track's files. 0, or null in rows of versions that had no such column: the "
        "first, and nearly always the only one. 1 and more: what sounds at the same time as the "
        "rest of the track. Null for the mix.",
    )
}
SCHEMAS: dict[str, pa.Schema] = {
    "recordings": _schema(
        {
            **_CALL,
            "recording_type": (_STRING, "`composite` (the mix) or `individual`."),
            **_OUTPUT,
            **_SESSION,
            "track_type": (
                _STRING,
                "`TRACK_TYPE_AUDIO` or `TRACK_TYPE_SCREEN_SHARE_AUDIO`; null for the mix.",
            ),
            "filename": (_STRING, "Name of the file without its folder."),
            "uri": (_STRING, "Absolute path or full URI of the file."),
            "container": (_STRING, "`mkv`, `webm`, `ogg` or `mp3`."),
            "codec": (_STRING, "`opus` or `mp3`."),
            "channels": (_COUNT, "1 or 2."),
            "sample_rate_hz": (_COUNT, "Always 48000."),
            "bitrate_bps": (
                _COUNT,
                "Mean bit rate: of the audio frames for the mix, of the whole file for the others.",
            ),
            "size_bytes": (_COUNT, "Size of the file."),
            "sha256": (_STRING, "SHA-256 of the file, in hex."),
            "start_time": (_TIME, "Server time of the first sample."),
            "end_time": (
                _TIME,
                "Server time after the last sample; for an individual file `start_time` plus its "
                "length.",
            ),
            "duration_ms": (_MS, "Length of the decoded audio."),
            "duration_samples": (_COUNT, "The same in samples at 48 kHz, exact."),
            "offset_ms": (_MS, "Call time of the first sample."),
            "archive_uris": (_STRINGS, "The archives the audio came from."),
            "callpress_version": (_STRING, "Version that made the file."),
            **_PART,
        }
    ),
    "segments": _schema(
        {
            **_CALL,
            **_SESSION,
            **_OUTPUT,
            "track_id": (_STRING, "The published track."),
            "archive_uri": (_STRING, "The archive its packets came from."),
            "base_filename": (_STRING, "The segment in that archive."),
            "ssrc": (_COUNT, "RTP synchronisation source."),
            "file_start_ms": (_MS, "Where it begins in the individual file."),
            "file_end_ms": (_MS, "Where it ends in the individual file."),
            "call_start_ms": (_MS, "Call time of its beginning."),
            "call_end_ms": (_MS, "Call time of its end."),
            "clock_method": (
                _STRING,
                "How its times were found: `arrival_envelope` or `metadata`.",
            ),
            "clock_skew_ppm": (
                _REAL,
                "How much faster the sender's clock runs than the server's; null where it cannot "
                "be known.",
            ),
            "sync_error_ms": (_REAL, "Bound on the error of the call times."),
            "gap_before": (
                _STRING,
                "What lies before it: `none`; `muted` (or not published); `stalled` (the sender's "
                "capture stood still); `lost` "
                "packets; `not_recorded` (between archives); `unknown` (a new origin of time "
                "stamps); `left_out` (a long pause of which the file has a second at most).",
            ),
            **_PART,
        }
    ),
    "tracks": _schema(
        {
            **_CALL,
            **_SESSION,
            "track_type": (_STRING, "`TRACK_TYPE_AUDIO` or `TRACK_TYPE_SCREEN_SHARE_AUDIO`."),
            "output_type": (_STRING, "`audio_only` or `screenshare_audio_only`."),
            "status": (_STRING, "`ok partial failed empty`."),
            "channels": (_COUNT, "1 or 2; null when nothing was sent."),
            "archive_uris": (_STRINGS, "The archives the track came from."),
            "track_ids": (_STRINGS, "Published tracks in it, in order of time."),
            "segment_count": (
                _COUNT,
                "Segments the metadata lists. As `jitter_ms` and the packets of the dumps, counted "
                "in the row of the first `part`, and null in the others.",
            ),
            "ssrcs": (pa.list_(pa.int64()), "RTP synchronisation sources, in order of time."),
            "codec": (_STRING, "`audio/opus` or `audio/red`."),
            "audio_bandwidth_hz": (
                _COUNT,
                "Widest audio bandwidth that its Opus packets state, copies that RED brought back "
                "included: 4000, 6000, 8000, 12000 or 20000. Null when nothing was sent or made, "
                "when encrypted, and in rows of versions that had no such column.",
            ),
            "packets_expected": (_COUNT, "By the sequence numbers, plus damaged ones."),
            "packets_received": (_COUNT, "Without duplicates; those without audio included."),
            "packets_lost": (_COUNT, "Sequence numbers that never came."),
            "packets_duplicate": (_COUNT, "Came again."),
            "packets_reordered": (_COUNT, "Came after a later one."),
            "packets_invalid": (_COUNT, "Dropped: damaged, or not Opus inside."),
            "packets_recovered_red": (_COUNT, "Lost, but carried by a later RED packet."),
            "packets_recovered_fec": (
                _COUNT,
                "Lost, but decoded from the copy in the next packet (in-band FEC); of a packet of "
                "several frames the last.",
            ),
            "concealed_ms": (
                _MS,
                "Made up by the decoder in place of lost audio: at most 100 ms of each loss.",
            ),
            "silence_ms": (
                _MS,
                "Nothing to decode: pauses, mutes, stalls, and loss beyond concealment.",
            ),
            "dtx_ms": (_MS, "Part of the silence that is DTX."),
            "media_ms": (_MS, "Audio really received."),
            "duration_ms": (_MS, "Length of the individual file."),
            "offset_ms": (_MS, "Call time of its first sample."),
            "clock_method": (_STRING, "As in `segments`; `mixed` when they differ."),
            "clock_skew_ppm": (_REAL, "As in `segments`."),
            "sync_error_ms": (_REAL, "The largest of its segments."),
            "jitter_ms": (
                _REAL,
                "Mean difference of arrival and media spacing (what RFC 3550 s6.4.1 estimates).",
            ),
            "loudness_lufs": (
                _REAL,
                "EBU R128 integrated loudness of the track alone; null when silent, or encrypted "
                "end to end. Where a part is encrypted, what is said of the sound is of the rest.",
            ),
            "peak_dbfs": (_REAL, "Largest sample; null when silent or encrypted."),
            "speech_ms": (
                _MS,
                "Sum of its `speech` rows, in the file's time; null when encrypted.",
            ),
            "claimed_ms": (_MS, "Sum of its rows in `dumps`; null in rows of versions without."),
            "found_ms": (_MS, "As `claimed_ms`."),
            "missing_ms": (_MS, "As `claimed_ms`."),
            "callpress_version": (
                _STRING,
                "Version that pressed the track; null in rows of versions that had no such column.",
            ),
            **_PART,
        }
    ),
    "dumps": _schema(
        {
            **_CALL,
            "participant_id": (_STRING, "The user id."),
            "user_session_id": (_STRING, "One connection of that user."),
            "output_type": (_STRING, "`audio_only` or `screenshare_audio_only`."),
            "archive_uri": (_STRING, "The archive whose metadata lists the segment."),
            "base_filename": (_STRING, "The segment in that archive."),
            "member": (_STRING, "The dump that was read for it; null where the archive has none."),
            "claimed_start_time": (
                _TIME,
                "Server time at which the first packet arrived, by the metadata; null where it "
                "does not say.",
            ),
            "claimed_end_time": (_TIME, "The same of the last packet."),
            "claimed_ms": (
                _MS,
                "From the first to the last packet by the metadata: by the server's clock, else by "
                "RTP time; null where it does not say.",
            ),
            "found_start_time": (
                _TIME,
                "Server time at which the first RTP packet of the dump arrived; null without any.",
            ),
            "found_end_time": (_TIME, "The same of the last one."),
            "found_ms": (_MS, "From the first to the last RTP packet of the dump."),
            "missing_ms": (
                _MS,
                "Claimed, or received, and in no file. 0 where another archive of the call brings "
                "the segment.",
            ),
            "records": (
                _COUNT,
                "Records of the dump, exactly the sum of all `records_*`; null without a dump.",
            ),
            **{f"records_{fate}": (_COUNT, text) for fate, text in _FATES.items()},
        }
    ),
    "calls": _schema(
        {
            **_CALL,
            "timeline_start_time": (_TIME, "Call time zero."),
            "start_time": (_TIME, "Server time of the earliest media; null when nothing was sent."),
            "end_time": (
                _TIME,
                "Server time of the end of the latest media; null when nothing was sent.",
            ),
            "duration_ms": (_MS, "From `start_time` to `end_time`."),
            "participant_count": (_COUNT, "Participants the metadata speaks of."),
            "session_count": (_COUNT, "Participant sessions."),
            "participants_with_audio": (
                _COUNT,
                "Participants of whom something can be heard; null in rows of versions without.",
            ),
            "track_count": (_COUNT, "Tracks with audio; the parts of one count once."),
            "claimed_ms": (_MS, "Sum of its `tracks`; null in rows of versions without."),
            "found_ms": (_MS, "As `claimed_ms`."),
            "missing_ms": (_MS, "As `claimed_ms`."),
            "participant_ms": (_MS, "Sum of the tracks' lengths, of all parts."),
            "archive_uris": (_STRINGS, "The archives of the call."),
            "server_clock_steps": (
                _COUNT,
                "How often the clock of a server was set in mid-call, as all who were there show "
                "at one moment. The call goes on as before it: nothing is put in or left out. Null "
                "in rows of versions that had no such column.",
            ),
            "loudness_lufs": (
                _REAL,
                "EBU R128 integrated loudness of the mix; null when silent or no mix was made.",
            ),
            "peak_dbfs": (
                _REAL,
                "Largest sample of the mix before encoding; null when silent or no mix was made.",
            ),
            "status": (_STRING, "`ok partial failed empty`."),
            "callpress_version": (
                _STRING,
                "Version that pressed the call; null in rows of versions that had no such column.",
            ),
        }
    ),
    "archives": _schema(
        {
            "archive_uri": (
                _STRING,
                "Absolute path or full URI; a folder's ends in `/`. Of a link its host and path.",
            ),
            "size_bytes": (_COUNT, "As listed."),
            "fingerprint": (_STRING, "Changes whenever the content may have."),
            "modified_time": (_TIME, "As listed."),
            "member_count": (_COUNT, "Members read; null when it could not be read."),
            "track_count": (_COUNT, "Tracks with audio found."),
            "call_session_ids": (_STRINGS, "Call sessions found; null while it is `waiting`."),
            "status": (
                _STRING,
                "`ok partial failed empty`, or `waiting`: a run with a bound left it to the next "
                "one, which begins with it. Rows of calls it may have had before stay.",
            ),
            "attempts": (
                _COUNT,
                "Days (UTC) on which this fingerprint was tried with these settings; 0 while it is "
                "`waiting`.",
            ),
            "error_type": (_STRING, "Of the first failure; null when there is none."),
            "error_message": (_STRING, "Of the first failure; null when there is none."),
            "metadata_convention": (
                _STRING,
                "In what the times of its metadata differ alike from its dumps in most segments: "
                "its writer's way, nothing that is missing. Null where they agree, and in rows of "
                "versions without.",
            ),
            "copy_uri": (
                _STRING,
                "Its copy, which is read in its place from then on; null without one, as in rows "
                "of versions that had no such column.",
            ),
            "processed_at": (_TIME, "When it was last pressed; null while it is `waiting`."),
            "callpress_version": (
                _STRING,
                "Version that pressed it last; null in rows of versions that had no such column.",
            ),
        }
    ),
    "speech": _schema(
        {
            **_CALL,
            **_SESSION,
            **_OUTPUT,
            "start_ms": (_MS, "Call time at which the burst begins."),
            "end_ms": (_MS, "Call time at which it ends."),
            "file_start_ms": (_MS, "The same in the individual file."),
            "file_end_ms": (_MS, "The same in the individual file."),
            "level_dbfs": (
                _REAL,
                "Mean square of the burst in dB of full scale: a full sine has -3.01.",
            ),
            **_PART,
        }
    ),
    "failures": _schema(
        {
            "stage": (_STRING, "The step that failed."),
            "archive_uri": (
                _STRING,
                "The archive, or the manifest of an entry that cannot be read; null when the "
                "failure is of a call.",
            ),
            "member": (
                _STRING,
                "The archive's member, or the manifest's entry; null when it concerns the whole. "
                "Of `RetainedFileError` the name of the file.",
            ),
            **_CALL,
            **_SESSION,
            **_OUTPUT,
            "error_type": (_STRING, "One of the error types listed below."),
            "message": (_STRING, "What was found, where, what was expected."),
            "byte_offset": (_COUNT, "Position in the member; null when no single one is to blame."),
            "attempt": (_COUNT, "Which try at the archive this was."),
            "retryable": (pa.bool_(), "Whether another run over the same bytes may succeed."),
            "failed_at": (_TIME, "When it failed."),
        }
    ),
    "notices": _schema(
        {
            "event_id": (
                _STRING,
                "SHA-256 of call session, file name and `sha256`, in hex: the same event has the "
                "same id, to every target and over all tries.",
            ),
            "target": (_STRING, "The name of the target; never its query or a key."),
            **_CALL,
            "event_type": (_STRING, "`call.recording_ready` or `call.recording_failed`."),
            "filename": (_STRING, "Name of the file it tells of; null where none was made."),
            "uri": (_STRING, "Where that is; null where none was made."),
            "sha256": (_STRING, "SHA-256 of the file; null where none was made."),
            "state": (
                _STRING,
                "`pending`: to be sent; `delivered`: the target has taken it; `failed`: the target "
                "refused it, or its file was replaced or removed before it was sent; `gone`: the "
                "target answered that it takes nothing any more (410).",
            ),
            "attempts": (_COUNT, "How often it was sent."),
            "http_status": (_COUNT, "Of the last answer; null without one."),
            "message": (_STRING, "Why it is not delivered; null where nothing is known."),
            "updated_at": (_TIME, "When its state was written; at first the start of its run."),
            "body": (
                _STRING,
                "The event as it is sent, byte for byte: JSON, at most 4,096 bytes of UTF-8.",
            ),
        }
    ),
    "runs": _schema(
        {
            "started_at": (_TIME, "Start of the run."),
            "finished_at": (_TIME, "End of the run."),
            "status": (
                _STRING,
                "`ok`, `partial` (some archive failed) or `failed` (more than `max_failed_ratio` "
                "or `max_failed_count` allow of those attempted for the first time).",
            ),
            "callpress_version": (_STRING, "Version that ran."),
            "settings_json": (_STRING, "The settings, as JSON."),
            "archives_listed": (_COUNT, "Archives the patterns matched and manifests name."),
            "archives_skipped": (_COUNT, "Of these, left out because the catalog has them."),
            "archives_ok": (_COUNT, "Pressed whole."),
            "archives_partial": (_COUNT, "Pressed with something missing."),
            "archives_failed": (_COUNT, "Of which nothing could be made."),
            "archives_waiting": (
                _COUNT,
                "Left to the next run by `--stop-after`, `--max-archives` or `--max-bytes`; null "
                "in rows of versions without.",
            ),
            "calls_pressed": (_COUNT, "Call sessions whose rows were written."),
            "claimed_ms": (
                _MS,
                "By the metadata of the calls pressed; null in rows of versions without.",
            ),
            "found_ms": (_MS, "In their dumps."),
            "missing_ms": (_MS, "Claimed or received, and in no file."),
            "media_ms": (_MS, "Length of all media files written."),
            "cpu_ms": (_MS, "CPU time of the codec processes."),
            "bytes_read": (_COUNT, "Bytes of archives read."),
            "bytes_written": (_COUNT, "Bytes of media written."),
        }
    ),
}
TABLES = tuple(SCHEMAS)
LATER_TABLES = frozenset({"dumps", "notices"})
"""Tables that a catalog of the first version lacks until a run of this one has written to it."""
_TRACK = (
    "call_type",
    "call_id",
    "call_session_id",
    "participant_id",
    "user_session_id",
    "output_type",
)
KEYS: dict[str, tuple[str, ...]] = {
    "recordings": (*_TRACK, "recording_type", "part"),
    "tracks": (*_TRACK, "part"),
    "segments": (*_TRACK, "file_start_ms", "part"),
    "speech": (*_TRACK, "start_ms", "part"),
    "dumps": (*_TRACK, "archive_uri", "base_filename"),
    "calls": ("call_type", "call_id", "call_session_id"),
    "archives": ("archive_uri",),
    "failures": (
        "stage", "archive_uri", "member", "byte_offset", *_TRACK, "error_type",
    ),
    "notices": ("call_type", "call_id", "call_session_id", "event_id", "target"),
    "runs": ("run_id",),
}  # fmt: skip
"""What makes a row unique. Merging keeps one row per key."""
CALL_TABLES = ("recordings", "segments", "tracks", "calls", "speech", "dumps", "failures")
"""Tables whose rows belong to a call (failures may, or may not)."""
ADDED_TABLES = frozenset({"notices"})
"""Tables whose rows stay when others of their owner come: of two with one key that which is
further (`row_keys.furthest`).
"""
MAX_SHARD_ROWS = 100_000


def to_table(name: str, rows: Iterable[Row]) -> pa.Table:
    """Returns rows as a table of the contract's schema; a column that a row lacks is null.

    Raises:
      ValueError: a row has a column the schema does not.
    """
    schema = SCHEMAS[name]
    rows = list(rows)
    for row in rows:
        unknown = set(row) - set(schema.names)
        if unknown:
            raise ValueError(f"table {name} has no column {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=schema)


def owner_key(name: str, row: Mapping[str, Any]) -> ReplacedKey:
    """Returns what a row belongs to: its run, its call when it has one, else its archive."""
    if name == "runs":
        return (row["run_id"],)
    if name == "archives" or row["call_session_id"] is None:
        return (row["archive_uri"],)
    return (row["call_type"], row["call_id"], row["call_session_id"])


def owner_key_columns(name: str) -> tuple[str, ...]:
    """Returns the columns that an owner key is of: of a table whose rows belong to calls, those of
    a call.
    """
    return KEYS[name] if name in ("archives", "runs") else KEYS["calls"]


def shard_hash(key: ReplacedKey) -> int:
    """Returns the leading 32 bits of the SHA-256 of an owner key, as a JSON array."""
    text = json.dumps(list(key), ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:4], "big")


def shard_name(bits: int, shard: int) -> str:
    """Returns the object name of one shard, e.g. `part-0.parquet` or `part-2-01.parquet`."""
    return "part-0.parquet" if bits == 0 else f"part-{bits}-{shard:0{bits}b}.parquet"


def shard_bits(row_count: int, shard_rows: int = MAX_SHARD_ROWS) -> int:
    """Returns how many leading bits split `row_count` rows into shards of about `shard_rows`."""
    bits = 0
    while row_count > shard_rows << bits:
        bits += 1
    return bits


def describe(name: str) -> list[tuple[str, str, str]]:
    """Returns (column, type, description) for each column of a table."""
    return [
        (field.name, str(field.type), (field.metadata or {}).get(b"description", b"").decode())
        for field in SCHEMAS[name]
    ]
