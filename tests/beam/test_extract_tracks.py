"""ExtractTracks: each track, from all its parts -> one individual file and its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import av
import pytest

from tests.support.beam import (
    CALL,
    CALL_START_UNIX_NS,
    Check,
    anything,
    count_of,
    expect,
    list_files,
    make_participant,
    make_pipeline,
    make_track,
    nothing,
    speak,
    stage_sources,
    staged_rows,
    write_call,
)
from tests.support.builders import Participant, Segment, encode_opus, tone
from tests.support.job_run import JobRun
from transforms.catalog.rows.ids import track_ids
from transforms.elements import ExtractedTrack, Failure, Row, TrackSource, key_hash
from transforms.engine import progress
from transforms.extract_tracks import ExtractTracks
from transforms.media.settings import IndividualSettings, PressSettings
from transforms.media.values import Container, OutputType
from transforms.media.wall_time import to_time

FOLDER = "recordings/default/standup/session-1"
ALICE = f"{FOLDER}/individual_default_standup_alice_sess-alice_audio_only_1767607200000.mkv"
ALICE_1 = ALICE.replace(".mkv", "_part1.mkv")


def _run(
    context: JobRun,
    sources: Sequence[TrackSource],
    *,
    tracks: Check = anything,
    failures: Check = nothing,
) -> Any:
    pipeline = make_pipeline()
    extracted = pipeline | beam.Create(sources) | ExtractTracks(*context)
    expect(tracks=(extracted.tracks, tracks), failures=(extracted.failures, failures))
    result = pipeline.run()
    result.wait_until_finish()
    return result


def _rows(context: JobRun, table: str, source: TrackSource) -> list[Row]:
    name = f"track-{key_hash(*track_ids(source.track).values())}.json"
    return staged_rows(context.staged("rows", name), table)


@pytest.fixture
def alice(context: JobRun, tmp_path: Path) -> TrackSource:
    """One second of audio, half a second into the call."""
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice", start_ms=500)])
    (source,) = stage_sources(context, ref)
    return source


def test_track_becomes_a_file_under_the_name_of_its_ids(
    context: JobRun, alice: TrackSource
) -> None:
    def check(tracks: list[ExtractedTrack]) -> None:
        (track,) = tracks
        assert track.track == make_track()
        assert track.archive_uris == (alice.parts[0].archive_uri,)
        assert track.bytes_written == Path(context.output_uri, ALICE).stat().st_size
        assert track.duration_samples == 48_000 - 312
        assert dict(track.rows.row_counts) == {
            "recordings": 1,
            "segments": 1,
            "tracks": 1,
            "dumps": 1,
        }
        assert track.cpu_ns > 0

    result = _run(context, [alice], tracks=check)

    assert list_files(context.output_uri) == [ALICE]
    with av.open(f"{context.output_uri}/{ALICE}") as file:
        packets = [bytes(packet) for packet in file.demux(audio=0) if packet.size]
    assert packets == list(speak())
    assert count_of(result, "tracks_extracted") == 1
    assert count_of(result, "media_samples") == 48_000 - 312


def test_rows_describe_the_file(context: JobRun, alice: TrackSource) -> None:
    _run(context, [alice])

    data = Path(context.output_uri, ALICE).read_bytes()
    (recording,) = _rows(context, "recordings", alice)
    assert recording["uri"] == f"{context.output_uri}/{ALICE}"
    assert recording["filename"] == ALICE.rpartition("/")[2]
    assert (recording["size_bytes"], recording["sha256"]) == (
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    assert (recording["recording_type"], recording["track_type"]) == (
        "individual",
        "TRACK_TYPE_AUDIO",
    )
    assert (recording["container"], recording["codec"], recording["sample_rate_hz"]) == (
        "mkv",
        "opus",
        48_000,
    )
    assert (recording["channels"], recording["duration_samples"]) == (1, 48_000 - 312)
    assert recording["call_cid"] == "default:standup"
    assert abs(recording["offset_ms"] - 500) <= 5
    assert recording["start_time"] == to_time(
        CALL_START_UNIX_NS + recording["offset_ms"] * 1_000_000
    )
    assert (recording["run_id"], recording["settings_fingerprint"]) == (
        context.run_id,
        context.settings_fingerprint,
    )
    assert recording["created_at"] == to_time(context.started_unix_ns)


def test_rows_describe_the_track_and_its_segments(context: JobRun, tmp_path: Path) -> None:
    segments = [
        Segment(packets=speak(1.0), ssrc=1, lost=(10, 11), base_filename="one"),
        Segment(packets=speak(0.5), ssrc=2, start_ms=3_000, base_filename="two"),
    ]
    ref = write_call(
        tmp_path / "a.tar.gz", [Participant(participant_id="alice", segments=segments)]
    )
    (source,) = stage_sources(context, ref)

    _run(context, [source])

    (track,) = _rows(context, "tracks", source)
    assert (track["status"], track["segment_count"], track["ssrcs"]) == ("ok", 2, [1, 2])
    assert (track["packets_expected"], track["packets_received"], track["packets_lost"]) == (
        75,
        73,
        2,
    )
    assert (track["media_ms"], track["silence_ms"]) == (1_460, 40 + 2_000)
    assert [track[name] for name in ("packets_recovered_fec", "concealed_ms", "loudness_lufs")] == [
        None
    ] * 3  # not measured yet
    assert track["archive_uris"] == [ref.uri]
    first, second = _rows(context, "segments", source)
    assert (first["base_filename"], first["ssrc"], first["gap_before"], first["file_start_ms"]) == (
        "one",
        1,
        "none",
        0,
    )
    assert (second["base_filename"], second["ssrc"], second["gap_before"]) == ("two", 2, "muted")
    assert abs(second["call_start_ms"] - 3_000) <= 5
    assert abs(second["file_start_ms"] - 3_000) <= 5


def test_row_has_the_widest_audio_bandwidth_that_was_sent(context: JobRun, tmp_path: Path) -> None:
    narrow_band, super_wide_band = 1101, 1104  # opus_defines.h
    segments = [
        Segment(
            packets=encode_opus(tone(440, 0.5), bandwidth=bandwidth),
            start_ms=1_000 * number,
            base_filename=f"s{number}",
        )
        for number, bandwidth in enumerate((narrow_band, super_wide_band, narrow_band))
    ]
    ref = write_call(
        tmp_path / "a.tar.gz", [Participant(participant_id="alice", segments=segments)]
    )
    (source,) = stage_sources(context, ref)

    _run(context, [source])

    (track,) = _rows(context, "tracks", source)
    assert track["audio_bandwidth_hz"] == 12_000


def test_file_may_begin_with_the_mix(context: JobRun, alice: TrackSource) -> None:
    _run(context, [replace(alice, begin_unix_ns=CALL_START_UNIX_NS)])

    (recording,) = _rows(context, "recordings", alice)
    assert (recording["offset_ms"], recording["start_time"]) == (0, to_time(CALL_START_UNIX_NS))
    assert recording["duration_samples"] == pytest.approx(72_000 - 312, abs=240)
    (segment,) = _rows(context, "segments", alice)
    assert segment["file_start_ms"] == pytest.approx(segment["call_start_ms"], abs=2)
    (track,) = _rows(context, "tracks", alice)
    assert (track["offset_ms"], track["silence_ms"]) == (0, pytest.approx(500, abs=3))


def test_file_that_leaves_out_pauses_says_so_and_is_made(context: JobRun, tmp_path: Path) -> None:
    segments = [
        Segment(packets=speak(), base_filename="one", ssrc=1),
        Segment(packets=speak(), base_filename="two", ssrc=2, start_ms=1_801_000),
    ]
    ref = write_call(
        tmp_path / "a.tar.gz", [Participant(participant_id="alice", segments=segments)]
    )
    (source,) = stage_sources(context, ref)

    def told(failures: list[Failure]) -> None:
        (failure,) = failures
        assert (failure.stage, failure.error_type) == ("ExtractTracks", "TimelineError")
        assert (failure.participant_id, failure.output_type) == ("alice", OutputType.AUDIO_ONLY)
        assert failure.message == (
            "alice: the file of TRACK_TYPE_AUDIO leaves out 1 pauses of more than 600 s: with "
            "them it would be 0.50 h long, expected at most 0.10 h (limits.max_media_hours, "
            "max_media_ratio); the table segments has the call time of what is there"
        )

    def extracted(tracks: list[ExtractedTrack]) -> None:
        (track,) = tracks
        (time,) = track.file_times
        assert time.longest_pause_samples == 600 * 48_000
        assert time.begin_unix_ns == pytest.approx(CALL_START_UNIX_NS, abs=1_000_000)

    _run(
        context,
        [replace(source, allowed_samples=6 * 60 * 48_000)],
        tracks=extracted,
        failures=told,
    )

    (recording,) = _rows(context, "recordings", source)
    assert recording["duration_samples"] == 3 * 48_000 - 312
    first, second = _rows(context, "segments", source)
    assert (second["file_start_ms"], second["gap_before"]) == (2_000, "left_out")
    assert second["call_start_ms"] - first["call_start_ms"] == pytest.approx(1_801_000, abs=2)
    (track,) = _rows(context, "tracks", source)
    assert (track["media_ms"], track["silence_ms"]) == (2_000, 1_000)


def test_parts_of_two_archives_make_one_file(context: JobRun, tmp_path: Path) -> None:
    first = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])
    second = write_call(tmp_path / "b.tar.gz", [make_participant("alice", start_ms=5_000)])
    sources = [source for ref in (first, second) for source in stage_sources(context, ref)]
    whole = replace(sources[0], parts=tuple(part for source in sources for part in source.parts))

    _run(context, [whole])

    assert list_files(context.output_uri) == [ALICE]
    (recording,) = _rows(context, "recordings", whole)
    assert recording["archive_uris"] == [first.uri, second.uri]
    assert abs(recording["duration_ms"] - 6_000) <= 10
    assert [row["gap_before"] for row in _rows(context, "segments", whole)] == [
        "none",
        "not_recorded",
    ]
    assert [row["archive_uri"] for row in _rows(context, "segments", whole)] == [
        first.uri,
        second.uri,
    ]


@pytest.mark.slow
def test_retried_bundle_writes_the_same_objects(
    context: JobRun, alice: TrackSource, tmp_path: Path
) -> None:
    def digests() -> dict[str, bytes]:
        folders = (context.output_uri, context.staged("rows"))
        return {
            name: Path(folder, name).read_bytes()
            for folder in folders
            for name in list_files(folder)
        }

    _run(context, [alice])
    first = digests()

    _run(context, [alice])

    assert digests() == first
    assert len(first) == 2


def test_track_whose_packets_are_gone_is_a_failure_and_the_others_go_on(
    context: JobRun, tmp_path: Path
) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice"), make_participant("bob")])
    alice, bob = stage_sources(context, ref)
    Path(bob.parts[0].packets_uri).unlink()

    def check_tracks(tracks: list[ExtractedTrack]) -> None:
        assert [track.track.participant_id for track in tracks] == ["alice"]

    def check_failures(failures: list[Failure]) -> None:
        (failure,) = failures
        assert (failure.stage, failure.error_type, failure.retryable) == (
            "ExtractTracks",
            "StorageError",
            True,
        )
        assert (failure.call, failure.participant_id, failure.user_session_id) == (
            CALL,
            "bob",
            "sess-bob",
        )
        assert failure.output_type == OutputType.AUDIO_ONLY
        assert "No such file" in failure.message

    result = _run(context, [alice, bob], tracks=check_tracks, failures=check_failures)

    assert list_files(context.output_uri) == [ALICE]
    assert count_of(result, "tracks_failed") == 1
    assert not [name for name in list_files(context.staging_uri) if name.startswith("work/")]


def test_output_that_cannot_be_written_is_a_failure(context: JobRun, alice: TrackSource) -> None:
    Path(context.output_uri).mkdir()
    Path(context.output_uri, "recordings").write_bytes(b"a file where a folder should be")

    def check(failures: list[Failure]) -> None:
        assert [(failure.error_type, failure.participant_id) for failure in failures] == [
            ("StorageError", "alice")
        ]

    _run(context, [alice], tracks=nothing, failures=check)


def test_container_is_a_setting(context: JobRun, alice: TrackSource) -> None:
    settings = PressSettings(individual=IndividualSettings(container=Container.OGG))

    _run(context.changed(settings=settings), [alice])

    assert list_files(context.output_uri) == [ALICE.replace(".mkv", ".ogg")]
    (recording,) = _rows(context, "recordings", alice)
    assert (recording["container"], recording["codec"]) == ("ogg", "opus")


@pytest.mark.parametrize(
    "individual",
    [
        IndividualSettings(enabled=False),
        IndividualSettings(output_types=(OutputType.SCREENSHARE_AUDIO_ONLY,)),
    ],
    ids=["switched off", "other output type"],
)
def test_track_without_a_file_is_still_measured_for_the_mix(
    context: JobRun, alice: TrackSource, individual: IndividualSettings
) -> None:
    def check(tracks: list[ExtractedTrack]) -> None:
        (track,) = tracks
        assert (track.bytes_written, track.duration_samples) == (0, 48_000 - 312)
        assert dict(track.rows.row_counts)["recordings"] == 0

    _run(context.changed(settings=PressSettings(individual=individual)), [alice], tracks=check)

    assert list_files(context.output_uri) == []
    (row,) = _rows(context, "tracks", alice)
    assert (row["status"], row["media_ms"]) == ("ok", 1_000)


def test_progress_tells_tracks_and_samples(context: JobRun, alice: TrackSource) -> None:
    told: list[tuple[str, int]] = []
    stop = progress.listen(lambda what, count: told.append((what, count)))

    _run(context, [alice])
    stop()

    assert told == [("media_samples", 48_000 - 312), ("tracks", 1), ("samples_extracted", 48_000)]


@pytest.fixture
def two_tracks(context: JobRun, tmp_path: Path) -> TrackSource:
    """Two seconds of one published track, and two of another from the first second on."""
    segments = [
        Segment(packets=speak(2.0), ssrc=1, lost=(10, 11), base_filename="one", track_id="a"),
        Segment(packets=speak(2.0, 880), ssrc=2, start_ms=900, base_filename="two", track_id="b"),
    ]
    ref = write_call(
        tmp_path / "a.tar.gz", [Participant(participant_id="alice", segments=segments)]
    )
    (source,) = stage_sources(context, ref)
    return source


def test_what_sounds_at_the_same_time_is_in_a_file_of_its_own(
    context: JobRun, two_tracks: TrackSource
) -> None:
    def check(tracks: list[ExtractedTrack]) -> None:
        (track,) = tracks
        sizes = [Path(context.output_uri, name).stat().st_size for name in (ALICE, ALICE_1)]
        assert (track.file_count, track.bytes_written) == (2, sum(sizes))
        assert track.duration_samples == 2 * (96_000 - 312)
        assert dict(track.rows.row_counts) == {
            "recordings": 2,
            "segments": 2,
            "tracks": 2,
            "dumps": 2,
        }

    _run(context, [two_tracks], tracks=check)

    assert list_files(context.output_uri) == [ALICE, ALICE_1]
    recordings = _rows(context, "recordings", two_tracks)
    assert [(row["part"], row["filename"], row["offset_ms"]) for row in recordings] == [
        (0, ALICE.rpartition("/")[2], 0),
        (1, ALICE_1.rpartition("/")[2], 900),
    ]
    assert [
        (row["part"], row["base_filename"], row["file_start_ms"], row["call_start_ms"])
        for row in _rows(context, "segments", two_tracks)
    ] == [(0, "one", 0, 0), (1, "two", 0, 900)]
    first, second = _rows(context, "tracks", two_tracks)
    assert (first["part"], first["packets_received"], first["packets_lost"]) == (0, 198, 2)
    assert (first["segment_count"], first["media_ms"], first["ssrcs"]) == (2, 1_960, [1])
    assert (second["part"], second["packets_received"], second["packets_lost"]) == (1, None, None)
    assert (second["segment_count"], second["media_ms"], second["ssrcs"]) == (None, 2_000, [2])
    assert (first["status"], second["status"]) == ("ok", "ok")


def test_more_sounds_at_once_than_there_are_files_is_a_failure(
    context: JobRun, tmp_path: Path
) -> None:
    segments = [
        Segment(
            packets=speak(2.0, 300 + 50 * number),
            ssrc=number,
            start_ms=10 * number,
            base_filename=f"s{number}",
            track_id=f"t{number}",
        )
        for number in range(9)
    ]
    ref = write_call(
        tmp_path / "a.tar.gz", [Participant(participant_id="alice", segments=segments)]
    )
    (source,) = stage_sources(context, ref)

    def check(failures: list[Failure]) -> None:
        (failure,) = failures
        assert failure.message == (
            "s8.rtpdump: 100 packets, 2.0 s, were left out: 8 other sounds of the track lie at "
            "their time, expected fewer"
        )
        assert (failure.stage, failure.error_type) == ("ExtractTracks", "TimelineError")
        assert (failure.archive_uri, failure.member) == (ref.uri, "s8.rtpdump")
        assert failure.output_type == source.track.output_type

    _run(context, [source], failures=check)
    assert len(list_files(context.output_uri)) == 8
