"""MixCalls: a call's plan, tracks and failures -> one MP3, and all the rows of the call."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import av
import numpy as np
import pytest

from tests.support.beam import (
    CALL,
    CALL_START_UNIX_NS,
    Check,
    anything,
    bundled_rows,
    call_row,
    count_of,
    expect,
    list_files,
    make_failure,
    make_participant,
    make_pipeline,
    make_plan,
    make_track,
    nothing,
    recording_row,
    silent_part,
    speak,
    stage_sources,
    stamp,
    track_row,
    write_call,
    write_rows,
)
from tests.support.builders import Participant, Segment, encode_opus, silence, tone
from tests.support.job_run import JobRun
from transforms import mix_calls
from transforms.catalog.schema import CALL_TABLES
from transforms.codec.pool import CodecLoan
from transforms.codec.process import Terms
from transforms.context import VERSION
from transforms.elements import (
    ArchiveOutcome,
    CallPlan,
    Failure,
    PressedCall,
    Row,
    Stage,
    TrackSource,
)
from transforms.extract_tracks import ExtractTracks
from transforms.filters import Filters
from transforms.media.mix_call import mix_call
from transforms.media.opus.packet import carries_fec
from transforms.media.settings import CompositeSettings, PressSettings
from transforms.media.values import CallKey, OutputType
from transforms.media.wall_time import to_time
from transforms.mix_calls import MixCalls

MIX = "recordings/default/standup/session-1/composite_default_standup_audio_1767607200000.mp3"
ALICE, BOB = ("alice", "sess-alice", "audio_only"), ("bob", "sess-bob", "audio_only")


def _run(
    context: JobRun,
    plans: Sequence[CallPlan],
    *,
    failed: Sequence[Failure] = (),
    calls: Check = anything,
    outcomes: Check = anything,
    extract_failures: Check = nothing,
) -> Any:
    """Extracts the tracks of the plans and mixes them."""
    pipeline = make_pipeline()
    planned = pipeline | "Plans" >> beam.Create(plans)
    extracted = planned | beam.FlatMap(lambda plan: plan.sources) | ExtractTracks(*context)
    failures = (pipeline | "Failed" >> beam.Create(failed), extracted.failures) | beam.Flatten()
    mixed = (planned, extracted.tracks, failures) | MixCalls(*context)
    expect(
        calls=(mixed.calls, calls),
        outcomes=(mixed.outcomes, outcomes),
        failures=(extracted.failures, extract_failures),
    )
    result = pipeline.run()
    result.wait_until_finish()
    return result


def _rows(context: JobRun, table: str, call: CallKey = CALL) -> list[Row]:
    return bundled_rows(context, table, call.as_tuple())


def _statuses(context: JobRun) -> dict[str, str]:
    return {row["participant_id"]: row["status"] for row in _rows(context, "tracks")}


def _uris(context: JobRun) -> dict[str | None, str]:
    return {row["participant_id"]: row["uri"] for row in _rows(context, "recordings")}


@pytest.fixture
def sources(context: JobRun, tmp_path: Path) -> list[TrackSource]:
    """Alice from 0.5 s to 1.5 s, Bob from 1 s to 3 s, one archive."""
    people = [make_participant("alice", start_ms=500), make_participant("bob", 2.0, start_ms=1_000)]
    return stage_sources(context, write_call(tmp_path / "a.tar.gz", people))


# --- a call as it should be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("large_samples", "share", "uses_free_cores"),
    [(1, 2, True), (1 << 40, 1, False)],
    ids=["large", "small"],
)
def test_large_call_that_is_all_there_is_keeps_the_cores_busy(
    context: JobRun,
    sources: list[TrackSource],
    monkeypatch: pytest.MonkeyPatch,
    large_samples: int,
    share: int,
    uses_free_cores: bool,
) -> None:
    monkeypatch.setattr(mix_calls, "_LARGE_SAMPLES", large_samples)
    given, run = [], CodecLoan.run

    def note(loan: CodecLoan, terms: Terms, job: Any, *args: Any) -> Any:
        given.append((job, terms.share, args[-3]))
        return run(loan, terms, job, *args)

    monkeypatch.setattr(CodecLoan, "run", note)

    _run(context, [make_plan(sources)])

    assert [asked for job, *asked in given if job is mix_call] == [[share, uses_free_cores]]


def test_call_gets_one_mix_from_its_earliest_media_to_its_latest(
    context: JobRun, sources: list[TrackSource]
) -> None:
    def check(calls: list[PressedCall]) -> None:
        (call,) = calls
        assert (call.call, call.status, call.failures, call.replaces_prior) == (
            CALL,
            "ok",
            (),
            False,
        )
        assert call.call_date == "2026-01-05"
        files = [Path(context.output_uri, name) for name in list_files(context.output_uri)]
        assert (call.files_written, call.bytes_written) == (
            3,
            sum(file.stat().st_size for file in files),
        )
        assert abs(call.media_samples - (1 + 2 + 2.5) * 48_000) < 2_000
        assert call.cpu_ns > 0

    result = _run(context, [make_plan(sources)], calls=check)

    assert count_of(result, "calls_pressed") == 1
    assert [name for name in list_files(context.output_uri) if name.endswith(".mp3")] == [MIX]
    (row,) = [row for row in _rows(context, "recordings") if row["recording_type"] == "composite"]
    data = Path(context.output_uri, MIX).read_bytes()
    assert (row["uri"], row["filename"]) == (f"{context.output_uri}/{MIX}", MIX.rpartition("/")[2])
    assert (row["size_bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert [
        row[name] for name in ("participant_id", "user_session_id", "track_type", "output_type")
    ] == [None] * 4
    assert (row["container"], row["codec"], row["channels"], row["bitrate_bps"]) == (
        "mp3",
        "mp3",
        1,
        128_000,
    )
    assert abs(row["offset_ms"] - 500) <= 5
    assert abs(row["duration_samples"] - 120_000) <= 480
    assert row["archive_uris"] == [sources[0].parts[0].archive_uri]
    with av.open(f"{context.output_uri}/{MIX}") as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) == row["duration_samples"]
        assert file.metadata["artist"] == "alice, bob"


def test_call_row_sums_its_tracks(context: JobRun, sources: list[TrackSource]) -> None:
    plan = make_plan(
        sources,
        sessions=(
            ("alice", "sess-alice"),
            ("bob", "sess-bob"),
            ("bob", "sess-2"),
            ("mute", "sess-m"),
        ),
        server_clock_steps=2,
    )

    _run(context, [plan])

    (row,) = _rows(context, "calls")
    assert row["server_clock_steps"] == 2
    assert (row["call_cid"], row["call_session_id"], row["status"]) == (
        "default:standup",
        "session-1",
        "ok",
    )
    assert row["timeline_start_time"] == to_time(CALL_START_UNIX_NS)
    assert (row["participant_count"], row["session_count"], row["track_count"]) == (3, 4, 2)
    assert abs(row["participant_ms"] - 3_000) <= 20
    assert abs((row["start_time"] - row["timeline_start_time"]).total_seconds() - 0.5) <= 0.005
    assert abs(row["duration_ms"] - 2_500) <= 20
    assert (row["run_id"], row["settings_fingerprint"]) == (
        context.run_id,
        context.settings_fingerprint,
    )


@pytest.fixture
def talk(context: JobRun, tmp_path: Path) -> list[TrackSource]:
    """Alice talks from 1 s to 3 s of her 5 s, which begin 2 s into the call; Bob shares a screen
    that sounds from the start.
    """
    buzz = np.sum([tone(150 * k, 2, amplitude=0.2 / k) for k in range(1, 16)], axis=0) * (
        1 + 2 * tone(5, 2)
    )
    sent = np.concatenate([silence(1), buzz.astype(np.float32), silence(2)])
    packets = encode_opus(sent, fec=True, expected_loss_percent=30)
    by_fec = next(k for k in range(80, 120) if carries_fec(packets[k])) - 1
    screen = Segment(packets=speak(3.0), track_type="TRACK_TYPE_SCREEN_SHARE_AUDIO", ssrc=2)
    people = [
        Participant(
            participant_id="alice",
            segments=[Segment(packets=packets, start_ms=2_000, lost={by_fec - 1, by_fec})],
        ),
        Participant(participant_id="bob", segments=[screen]),
    ]
    return stage_sources(context, write_call(tmp_path / "talk.tar.gz", people))


def test_rows_tell_what_was_heard(context: JobRun, talk: list[TrackSource]) -> None:
    _run(context, [make_plan(talk)])

    alice, bob = sorted(_rows(context, "tracks"), key=lambda row: row["participant_id"])
    assert (
        alice["packets_lost"],
        alice["packets_recovered_fec"],
        alice["concealed_ms"],
        alice["silence_ms"],
    ) == (2, 1, 20, 0)
    assert (bob["packets_recovered_fec"], bob["concealed_ms"], bob["silence_ms"]) == (0, 0, 0)
    assert bob["loudness_lufs"] == pytest.approx(-15.7, abs=0.7)  # 440 Hz, peak -12 dBFS
    assert bob["peak_dbfs"] == pytest.approx(-12, abs=0.5)
    (speech,) = [row for row in _rows(context, "speech") if row["participant_id"] == "alice"]
    assert (speech["start_ms"], speech["end_ms"]) == (
        pytest.approx(3_000, abs=100),
        pytest.approx(5_000, abs=100),
    )
    assert (speech["file_start_ms"], speech["file_end_ms"]) == (
        speech["start_ms"] - 2_000,
        speech["end_ms"] - 2_000,
    )
    assert speech["level_dbfs"] == pytest.approx(-16, abs=3)
    assert alice["speech_ms"] == speech["end_ms"] - speech["start_ms"]
    (call,) = _rows(context, "calls")
    assert call["loudness_lufs"] == pytest.approx(-15, abs=2)
    assert call["peak_dbfs"] >= bob["peak_dbfs"]


@pytest.mark.parametrize("enabled", [True, False])
def test_screenshare_audio_may_be_left_out_of_the_mix(
    context: JobRun, talk: list[TrackSource], enabled: bool
) -> None:
    settings = replace(context.settings, composite=CompositeSettings(screenshare_audio=enabled))

    _run(context.changed(settings=settings), [make_plan(talk)])

    (row,) = [row for row in _rows(context, "recordings") if row["recording_type"] == "composite"]
    assert row["offset_ms"] == 0  # with the earliest media of the call, mixed or not
    assert row["duration_ms"] == pytest.approx(7_000, abs=20)
    with av.open(f"{context.output_uri}/{MIX}") as file:
        pcm = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert np.abs(pcm[5_000:90_000]).max() == pytest.approx(0.25 if enabled else 0, abs=0.03)


def test_tracks_are_heard_where_no_mix_is_made(context: JobRun, talk: list[TrackSource]) -> None:
    settings = replace(context.settings, composite=CompositeSettings(enabled=False))

    _run(context.changed(settings=settings), [make_plan(talk)])

    assert set(_uris(context)) == {"alice", "bob"}
    assert all(row["loudness_lufs"] is not None for row in _rows(context, "tracks"))
    assert {row["participant_id"] for row in _rows(context, "speech")} >= {"alice"}
    assert [(row["loudness_lufs"], row["peak_dbfs"]) for row in _rows(context, "calls")] == [
        (None, None)
    ]


def test_every_archive_of_a_call_has_an_outcome(
    context: JobRun, sources: list[TrackSource]
) -> None:
    archive = sources[0].parts[0].archive_uri
    about_other = make_failure(call=CALL, archive_uri="/raw/silent.zip", retryable=True)
    about_all = make_failure(call=CALL, stage=Stage.PLAN_CALLS, message="of the whole call")
    plan = make_plan(sources, archive_uris=(archive, "/raw/silent.zip"))

    def check(outcomes: list[ArchiveOutcome]) -> None:
        assert sorted(outcomes, key=lambda outcome: outcome.made_something) == [
            ArchiveOutcome(
                archive_uri="/raw/silent.zip", made_something=False, first_failure=about_other
            ),
            ArchiveOutcome(archive_uri=archive, made_something=True, first_failure=about_all),
        ]

    _run(context, [plan], failed=[about_other, about_all], outcomes=check)


def test_calls_are_kept_apart(context: JobRun, tmp_path: Path, sources: list[TrackSource]) -> None:
    other = CallKey(call_type="default", call_id="standup", call_session_id="session-2")
    archive = write_call(
        tmp_path / "b.zip", [make_participant("carol")], kind="zip", call_session_id="session-2"
    )
    plans = [make_plan(sources), make_plan(stage_sources(context, archive), call=other)]
    failed = make_failure(call=other, archive_uri=archive.uri, message="of the second")

    def check(calls: list[PressedCall]) -> None:
        found = {call.call: (call.status, len(call.failures)) for call in calls}
        assert found == {CALL: ("ok", 0), other: ("partial", 1)}

    _run(context, plans, failed=[failed, make_failure()], calls=check)

    assert {row["participant_id"] for row in _rows(context, "tracks", other)} == {"carol"}


@pytest.mark.slow
def test_retried_bundle_writes_the_same_objects(
    context: JobRun, sources: list[TrackSource]
) -> None:
    def contents() -> dict[str, bytes]:
        folders = (context.output_uri, context.staged("rows"))
        return {
            name: Path(folder, name).read_bytes()
            for folder in folders
            for name in list_files(folder)
        }

    _run(context, [make_plan(sources)])
    first = contents()

    _run(context, [make_plan(sources)])

    assert contents() == first
    assert MIX in first


# --- with something missing -----------------------------------------------------------------------


def test_failed_track_leaves_the_call_partial_and_the_mix_without_it(
    context: JobRun, sources: list[TrackSource]
) -> None:
    Path(sources[1].parts[0].packets_uri).unlink()

    def check(calls: list[PressedCall]) -> None:
        (call,) = calls
        assert call.status == "partial"
        assert [(failure.stage, failure.participant_id) for failure in call.failures] == [
            ("ExtractTracks", "bob")
        ]

    _run(context, [make_plan(sources)], calls=check, extract_failures=anything)

    assert _statuses(context) == {"alice": "ok", "bob": "failed"}
    for table in ("calls", "tracks"):
        assert {row["callpress_version"] for row in _rows(context, table)} == {VERSION}
    assert set(_uris(context)) == {None, "alice"}
    (failure,) = _rows(context, "failures")
    assert (failure["stage"], failure["error_type"], failure["retryable"]) == (
        "ExtractTracks",
        "StorageError",
        True,
    )
    assert (failure["run_id"], failure["failed_at"]) == (
        context.run_id,
        to_time(context.started_unix_ns),
    )


def test_damage_in_a_track_leaves_it_and_the_call_partial(
    context: JobRun, sources: list[TrackSource]
) -> None:
    damage = make_failure(
        call=CALL,
        archive_uri=sources[0].parts[0].archive_uri,
        participant_id="alice",
        user_session_id="sess-alice",
        output_type=OutputType.AUDIO_ONLY,
    )

    _run(context, [make_plan(sources)], failed=[damage])

    assert _statuses(context) == {"alice": "partial", "bob": "ok"}
    assert [row["status"] for row in _rows(context, "calls")] == ["partial"]
    assert set(_uris(context)) == {None, "alice", "bob"}


def test_mix_that_fails_is_a_failure_of_the_call_and_the_tracks_stay(
    context: JobRun, sources: list[TrackSource]
) -> None:
    Path(context.output_uri, MIX).mkdir(parents=True)  # where the file should go

    def check(calls: list[PressedCall]) -> None:
        (call,) = calls
        (failure,) = call.failures
        assert (failure.stage, failure.error_type, failure.call) == (
            "MixCalls",
            "StorageError",
            CALL,
        )
        assert (failure.archive_uri, failure.participant_id, failure.output_type) == (
            None,
            None,
            None,
        )
        assert (call.status, call.files_written) == ("partial", 2)

    def check_outcomes(outcomes: list[ArchiveOutcome]) -> None:
        (outcome,) = outcomes
        assert outcome.made_something
        assert outcome.first_failure is not None
        assert outcome.first_failure.stage == "MixCalls"

    _run(context, [make_plan(sources)], calls=check, outcomes=check_outcomes)

    assert set(_uris(context)) == {"alice", "bob"}
    # The tracks were measured all the same.
    assert all(row["loudness_lufs"] is not None for row in _rows(context, "tracks"))
    assert [row["loudness_lufs"] for row in _rows(context, "calls")] == [None]


def test_call_in_which_nobody_sent_anything_is_empty(context: JobRun) -> None:
    plan = make_plan(
        [],
        silent_parts=(silent_part(context, make_track()),),
        sessions=(("alice", "sess-alice"),),
        archive_uris=("/raw/a",),
    )

    _run(context, [plan])

    assert _statuses(context) == {"alice": "empty"}
    (track,) = _rows(context, "tracks")
    assert track["audio_bandwidth_hz"] is None
    (row,) = _rows(context, "calls")
    assert (row["status"], row["track_count"], row["duration_ms"], row["start_time"]) == (
        "empty",
        0,
        0,
        None,
    )
    assert list_files(context.output_uri) == []


def test_call_of_which_nothing_could_be_made_is_failed(
    context: JobRun, sources: list[TrackSource]
) -> None:
    for source in sources:
        Path(source.parts[0].packets_uri).unlink()

    def check_outcomes(outcomes: list[ArchiveOutcome]) -> None:
        assert [
            (outcome.made_something, outcome.first_failure is None) for outcome in outcomes
        ] == [(False, False)]

    _run(context, [make_plan(sources)], outcomes=check_outcomes, extract_failures=anything)

    assert [row["status"] for row in _rows(context, "calls")] == ["failed"]
    assert _statuses(context) == {"alice": "failed", "bob": "failed"}


def test_failure_of_a_call_without_a_plan_makes_nothing(context: JobRun) -> None:
    _run(context, [], failed=[make_failure(call=CALL)], calls=nothing, outcomes=nothing)


# --- a call the catalog has already ---------------------------------------------------------------


def _prior(context: JobRun, *participants: str) -> dict[str, Any]:
    """Puts a call with its mix into the catalog; returns what its plan says of it."""
    files = [recording_row(name, f"/old/{name}.mkv") for name in participants]
    write_rows(context, "recordings", [recording_row(None, "/old/mix.mp3"), *files])
    write_rows(context, "tracks", [track_row(name) for name in participants])
    write_rows(
        context, "segments", [{**track_row_ids(name), "file_start_ms": 0} for name in participants]
    )
    write_rows(context, "calls", [call_row(status="ok", participant_ms=77, loudness_lufs=-21.5)])
    ids = tuple((name, f"sess-{name}", "audio_only") for name in participants)
    return {"has_prior": True, "prior_tracks": ids, "prior_files": ids, "has_prior_mix": True}


def track_row_ids(participant_id: str) -> Row:
    """Returns the ids of a track's rows."""
    names = (
        "call_cid",
        "call_type",
        "call_id",
        "call_session_id",
        "participant_id",
        "user_session_id",
        "output_type",
    )
    row = track_row(participant_id)
    return stamp({name: row[name] for name in names})


def test_call_pressed_anew_replaces_all_its_rows(
    context: JobRun, sources: list[TrackSource]
) -> None:
    def check(calls: list[PressedCall]) -> None:
        assert [(call.status, call.replaces_prior) for call in calls] == [("ok", True)]

    _run(context, [make_plan(sources, **_prior(context, "alice", "bob"))], calls=check)

    assert all(uri.startswith(context.output_uri) for uri in _uris(context).values())
    assert {row["run_id"] for table in CALL_TABLES for row in _rows(context, table)} == {
        context.run_id
    }


def test_track_that_no_archive_gives_any_more_keeps_its_file_and_the_mix_with_it(
    context: JobRun, sources: list[TrackSource]
) -> None:
    prior = _prior(context, "alice", "bob", "carol")

    def check(calls: list[PressedCall]) -> None:
        (call,) = calls
        assert [(failure.stage, failure.participant_id) for failure in call.failures] == [
            ("MixCalls", "carol")
        ]
        assert call.status == "partial"

    _run(context, [make_plan(sources, **prior)], calls=check)

    uris = _uris(context)
    assert (uris[None], uris["carol"]) == ("/old/mix.mp3", "/old/carol.mkv")
    assert [row["loudness_lufs"] for row in _rows(context, "calls")] == [
        -21.5
    ]  # of the mix that stays
    assert uris["alice"].startswith(context.output_uri)
    assert _statuses(context) == {"alice": "ok", "bob": "ok", "carol": "partial"}
    assert {row["participant_id"] for row in _rows(context, "segments")} == {
        "alice",
        "bob",
        "carol",
    }
    assert MIX not in list_files(context.output_uri)


def test_track_that_fails_now_keeps_what_was_made_of_it(
    context: JobRun, sources: list[TrackSource]
) -> None:
    prior = _prior(context, "alice", "bob")
    Path(sources[1].parts[0].packets_uri).unlink()

    _run(context, [make_plan(sources, **prior)], extract_failures=anything)

    assert _uris(context)["bob"] == "/old/bob.mkv"
    assert _uris(context)[None] == "/old/mix.mp3"
    assert _statuses(context) == {"alice": "ok", "bob": "partial"}


def test_mix_that_fails_now_keeps_the_old_one(context: JobRun, sources: list[TrackSource]) -> None:
    prior = _prior(context, "alice", "bob")
    Path(context.output_uri, MIX).mkdir(parents=True)

    _run(context, [make_plan(sources, **prior)])

    assert _uris(context)[None] == "/old/mix.mp3"
    assert [row["status"] for row in _rows(context, "calls")] == ["partial"]


def test_switching_the_mix_off_takes_none_away(context: JobRun, sources: list[TrackSource]) -> None:
    prior = _prior(context, "alice", "bob")
    settings = PressSettings(composite=CompositeSettings(enabled=False))

    _run(context.changed(settings=settings), [make_plan(sources, **prior)])

    assert _uris(context)[None] == "/old/mix.mp3"
    assert _uris(context)["alice"].startswith(context.output_uri)
    assert [row["status"] for row in _rows(context, "calls")] == ["ok"]


def test_run_about_some_tracks_leaves_all_else(context: JobRun, sources: list[TrackSource]) -> None:
    prior = _prior(context, "alice", "bob", "carol")
    about_carol = {
        "participant_id": "carol",
        "user_session_id": "sess-carol",
        "output_type": "audio_only",
    }
    ids = {
        name: track_row_ids("carol")[name]
        for name in ("call_cid", "call_type", "call_id", "call_session_id")
    }
    write_rows(
        context,
        "failures",
        [
            stamp({**ids, **about_carol, "stage": "ExtractTracks", "message": "of carol"}),
            stamp(
                {
                    **ids,
                    **about_carol,
                    "stage": "ExtractTracks",
                    "message": "of bob",
                    "participant_id": "bob",
                }
            )
            | {"user_session_id": "sess-bob"},
        ],
    )
    plan = make_plan(sources[1:], is_narrowed=True, is_whole=False, **prior)

    _run(context, [plan])

    uris = _uris(context)
    assert (uris[None], uris["alice"], uris["carol"]) == (
        "/old/mix.mp3",
        "/old/alice.mkv",
        "/old/carol.mkv",
    )
    assert uris["bob"].startswith(context.output_uri)
    assert set(_statuses(context)) == {"alice", "bob", "carol"}
    assert [row["participant_ms"] for row in _rows(context, "calls")] == [77]
    assert [row["message"] for row in _rows(context, "failures")] == ["of carol"]


def test_run_about_published_tracks_tells_the_failures_of_their_tracks_alone(
    context: JobRun, sources: list[TrackSource]
) -> None:
    """Which tracks those are the archives of a call tell together, and none of them alone."""
    failed = [
        make_failure(call=CALL, message=message, **owner)
        for message, owner in {
            "of alice": {"participant_id": "alice", "user_session_id": "sess-alice"},
            "of bob": {"participant_id": "bob", "user_session_id": "sess-bob"},
            "of carol": {"participant_id": "carol", "user_session_id": "sess-carol"},
            "of all": {},
        }.items()
    ]
    silent = silent_part(context, make_track("carol"))
    plan = make_plan(sources[1:], is_narrowed=True, is_whole=False, silent_parts=(silent,))
    told = ["of all", "of bob", "of carol"]

    def check(calls: list[PressedCall]) -> None:
        assert sorted(failure.message for call in calls for failure in call.failures) == told

    _run(context.changed(filters=Filters(track_ids=("t",))), [plan], failed=failed, calls=check)

    assert sorted(row["message"] for row in _rows(context, "failures")) == told


def test_call_without_an_earlier_archive_keeps_its_files_and_adds_new_tracks(
    context: JobRun, sources: list[TrackSource]
) -> None:
    prior = _prior(context, "alice")
    archive = sources[0].parts[0].archive_uri
    gone = make_failure(
        stage=Stage.RECALL_ARCHIVES,
        call=CALL,
        archive_uri="/raw/gone",
        retryable=True,
        error_type="StorageError",
    )
    plan = make_plan(
        sources[1:],
        is_whole=False,
        archive_uris=("/raw/gone", archive),
        sessions=(("alice", "sess-alice"), ("bob", "sess-bob")),
        **prior,
    )

    def check_outcomes(outcomes: list[ArchiveOutcome]) -> None:
        found = {
            outcome.archive_uri: (outcome.made_something, outcome.first_failure)
            for outcome in outcomes
        }
        assert found == {"/raw/gone": (False, gone), archive: (True, gone)}

    _run(context, [plan], failed=[gone], outcomes=check_outcomes)

    uris = _uris(context)
    assert (uris[None], uris["alice"]) == ("/old/mix.mp3", "/old/alice.mkv")
    assert uris["bob"].startswith(context.output_uri)
    (row,) = _rows(context, "calls")
    assert (row["status"], row["track_count"]) == ("partial", 2)
    assert set(row["archive_uris"]) == {"/raw/a.tar.gz", "/raw/gone", archive}


def test_two_sounds_of_one_track_have_rows_each_and_are_in_the_mix(
    context: JobRun, tmp_path: Path
) -> None:
    segments = [
        Segment(packets=speak(2.0), ssrc=1, base_filename="one", track_id="a"),
        Segment(packets=speak(3.0, 880), ssrc=2, start_ms=500, base_filename="two", track_id="b"),
    ]
    ref = write_call(
        tmp_path / "a.tar.gz", [Participant(participant_id="alice", segments=segments)]
    )
    sources = stage_sources(context, ref)

    def check(calls: list[PressedCall]) -> None:
        (call,) = calls
        assert (call.files_written, call.status) == (3, "ok")

    _run(context, [make_plan(sources)], calls=check)

    assert [(row["recording_type"], row["part"]) for row in _rows(context, "recordings")] == [
        ("individual", 0),
        ("individual", 1),
        ("composite", None),
    ]
    first, second = _rows(context, "tracks")
    assert (first["part"], second["part"]) == (0, 1)
    for row in (first, second):
        assert row["peak_dbfs"] == pytest.approx(-12.0, abs=0.7)
        assert (row["packets_recovered_fec"], row["concealed_ms"]) == (0, 0)
    (call,) = _rows(context, "calls")
    assert (call["track_count"], call["participant_ms"]) == (1, 1_994 + 2_994)
    assert call["peak_dbfs"] == pytest.approx(-6.0, abs=0.7)
    assert call["duration_ms"] == pytest.approx(3_494, abs=2)
