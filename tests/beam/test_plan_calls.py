"""PlanCalls: parts of a call from all its archives -> time zero, tracks, what is to be written."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import equal_to

from tests.support.beam import (
    CALL,
    CALL_START_UNIX_NS,
    Check,
    call_row,
    expect,
    make_failure,
    make_part,
    make_participant,
    make_pipeline,
    make_track,
    nothing,
    recording_row,
    stage_sources,
    track_row,
    write_call,
)
from tests.support.job_run import JobRun
from transforms.catalog.pending_replacement import archives_to_repeat
from transforms.elements import (
    CallPlan,
    Failure,
    PriorCall,
    Row,
    Stage,
    TrackPart,
    TrackSource,
)
from transforms.filters import Filters
from transforms.media.server_clock import ClockWatch, ServerClock, StepSighting, WatchedSpan
from transforms.media.settings import (
    BeginWith,
    CompositeSettings,
    IndividualSettings,
    LimitSettings,
    PressSettings,
)
from transforms.media.values import CallKey, OutputType
from transforms.media.wall_time import to_time
from transforms.plan_calls import PlanCalls
from transforms.pressing.plan_call import plan_call

HOUR_NS = 3_600 * 10**9
MS_NS = 10**6


def _plan(
    context: JobRun,
    *parts: TrackPart,
    prior: PriorCall | None = None,
    missing: Sequence[str] = (),
) -> tuple[CallPlan, list[Failure]]:
    job = context.job
    return plan_call(list(parts), prior, tuple(missing), job.settings, job.filters)


def _silent(participant_id: str = "mute", **fields: object) -> TrackPart:
    """A session in which nothing was sent."""
    return make_part(
        participant_id,
        output_type=None,
        has_packets=False,
        index_uri="",
        first_server_unix_ns=0,
        **fields,
    )


# --- time zero ------------------------------------------------------------------------------------


def test_time_zero_is_the_calls_stated_start(context: JobRun) -> None:
    plan, failures = _plan(
        context, make_part(first_server_unix_ns=CALL_START_UNIX_NS + 7 * HOUR_NS)
    )

    assert plan.timeline_start_unix_ns == CALL_START_UNIX_NS
    assert plan.sources[0].timeline_start_unix_ns == CALL_START_UNIX_NS
    assert plan.call_date == "2026-01-05"
    assert failures == []


def test_time_zero_is_the_earliest_of_differing_starts(context: JobRun) -> None:
    later = make_part("bob", call_start_unix_ns=CALL_START_UNIX_NS + 5 * MS_NS)

    assert _plan(context, later, make_part())[0].timeline_start_unix_ns == CALL_START_UNIX_NS


def test_time_zero_without_a_stated_start_is_the_earliest_media_to_the_ms(
    context: JobRun,
) -> None:
    media = CALL_START_UNIX_NS + 250 * MS_NS + 999_999
    parts = [
        make_part("bob", call_start_unix_ns=None, first_server_unix_ns=media + HOUR_NS),
        make_part("alice", call_start_unix_ns=None, first_server_unix_ns=media),
    ]

    assert _plan(context, *parts)[0].timeline_start_unix_ns == CALL_START_UNIX_NS + 250 * MS_NS


@pytest.mark.parametrize("hours", [-25, 25])
def test_stated_start_a_day_off_gives_way_to_the_media(context: JobRun, hours: int) -> None:
    media = CALL_START_UNIX_NS + hours * HOUR_NS

    assert _plan(context, make_part(first_server_unix_ns=media))[0].timeline_start_unix_ns == media


def test_start_that_one_session_states_wrongly_moves_nobody(context: JobRun) -> None:
    parts = [make_part("alice"), make_part("bob", call_start_unix_ns=157_766_400 * 10**9)]
    assert _plan(context, *parts)[0].timeline_start_unix_ns == CALL_START_UNIX_NS


@pytest.mark.parametrize("hours", [-24, 24])
def test_stated_start_within_a_day_stands(context: JobRun, hours: int) -> None:
    part = make_part(first_server_unix_ns=CALL_START_UNIX_NS + hours * HOUR_NS)

    assert _plan(context, part)[0].timeline_start_unix_ns == CALL_START_UNIX_NS


def test_time_zero_of_the_catalog_stays(context: JobRun) -> None:
    prior = PriorCall(timeline_start_unix_ns=CALL_START_UNIX_NS - 5 * HOUR_NS)

    plan, _ = _plan(context, make_part(), prior=prior)

    assert plan.timeline_start_unix_ns == CALL_START_UNIX_NS - 5 * HOUR_NS
    assert plan.has_prior


def test_time_zero_of_a_silent_call_is_its_stated_start_or_the_archives_modification(
    context: JobRun,
) -> None:
    assert _plan(context, _silent())[0].timeline_start_unix_ns == CALL_START_UNIX_NS
    unstated = _silent(
        call_start_unix_ns=None, archive_modified_unix_ns=CALL_START_UNIX_NS + HOUR_NS
    )
    assert _plan(context, unstated)[0].timeline_start_unix_ns == CALL_START_UNIX_NS + HOUR_NS


# --- tracks ---------------------------------------------------------------------------------------


def test_parts_of_several_archives_make_one_source(context: JobRun) -> None:
    first = make_part()
    second = make_part(
        archive_uri="/raw/b.tar.gz", first_server_unix_ns=CALL_START_UNIX_NS + HOUR_NS
    )

    plan, _ = _plan(context, first, second)

    source = TrackSource(
        track=make_track(),
        parts=(first, second),
        timeline_start_unix_ns=CALL_START_UNIX_NS,
        begin_unix_ns=None,
        allowed_samples=plan.sources[0].allowed_samples,
    )
    assert plan.sources == (source,)
    assert plan.archive_uris == ("/raw/a.tar.gz", "/raw/b.tar.gz")
    assert plan.sessions == (("alice", "sess-alice"),)


def test_sources_are_in_order_of_their_keys(context: JobRun) -> None:
    screen = OutputType.SCREENSHARE_AUDIO_ONLY
    parts = [make_part("bob"), make_part("alice", output_type=screen), make_part("alice")]

    plan, _ = _plan(context, *parts)

    assert [source.track for source in plan.sources] == [
        make_track("alice"),
        make_track("alice", screen),
        make_track("bob"),
    ]


def test_rejoined_session_is_another_track(context: JobRun) -> None:
    plan, _ = _plan(context, make_part(), make_part(user_session_id="sess-2"))

    assert [source.track.user_session_id for source in plan.sources] == ["sess-2", "sess-alice"]
    assert plan.sessions == (("alice", "sess-2"), ("alice", "sess-alice"))


def test_track_without_packets_is_empty_and_its_session_counts(context: JobRun) -> None:
    plan, failures = _plan(
        context, make_part(), make_part("bob", has_packets=False, index_uri=""), _silent("carol")
    )

    assert [part.track for part in plan.silent_parts] == [make_track("bob")]
    assert [source.track.participant_id for source in plan.sources] == ["alice"]
    assert [participant for participant, _ in plan.sessions] == ["alice", "bob", "carol"]
    assert failures == []


def test_part_without_packets_is_left_out_of_a_track_with_some(context: JobRun) -> None:
    plan, _ = _plan(context, make_part(has_packets=False, archive_uri="/raw/b.tar.gz"), make_part())

    assert [part.archive_uri for part in plan.sources[0].parts] == ["/raw/a.tar.gz"]
    assert plan.silent_parts == ()
    assert plan.archive_uris == ("/raw/a.tar.gz", "/raw/b.tar.gz")


def test_track_far_from_the_calls_median_is_a_timeline_error(context: JobRun) -> None:
    near = [make_part(name) for name in ("alice", "bob")]
    far = make_part(
        "carol", first_server_unix_ns=CALL_START_UNIX_NS + 25 * HOUR_NS, archive_uri="/raw/c.tar.gz"
    )

    plan, failures = _plan(context, *near, far)

    assert [source.track.participant_id for source in plan.sources] == ["alice", "bob"]
    (failure,) = failures
    assert (failure.stage, failure.error_type, failure.retryable) == (
        "PlanCalls",
        "TimelineError",
        False,
    )
    assert (failure.call, failure.participant_id, failure.output_type) == (
        CALL,
        "carol",
        OutputType.AUDIO_ONLY,
    )
    assert failure.archive_uri == "/raw/c.tar.gz"
    assert failure.message.startswith("carol: TRACK_TYPE_AUDIO lies 25.0 h from the median")
    assert plan.archive_uris == ("/raw/a.tar.gz", "/raw/c.tar.gz")


def test_far_track_does_not_move_time_zero(context: JobRun) -> None:
    near = [make_part(name, call_start_unix_ns=None) for name in ("alice", "bob")]
    far = make_part(
        "carol", first_server_unix_ns=CALL_START_UNIX_NS - 30 * HOUR_NS, call_start_unix_ns=None
    )

    plan, _ = _plan(context, far, *near)

    assert plan.timeline_start_unix_ns == CALL_START_UNIX_NS


def test_limit_of_call_hours_is_a_setting(context: JobRun) -> None:
    parts = [
        make_part("alice"),
        make_part("bob"),
        make_part("carol", first_server_unix_ns=CALL_START_UNIX_NS + 3 * HOUR_NS),
    ]
    short = context.changed(settings=PressSettings(limits=LimitSettings(max_call_hours=2)))

    assert len(_plan(context, *parts)[0].sources) == 3
    plan, failures = _plan(short, *parts)
    assert len(plan.sources) == 2
    assert "expected at most 2 h (limits.max_call_hours)" in failures[0].message


# --- hours of media -------------------------------------------------------------------------------

HOUR = 3_600 * 48_000


def _quiet(participant_id: str = "alice", hours: float = 3, **fields: Any) -> TrackPart:
    """A part with a word at its beginning and one after some hours."""
    return make_part(
        participant_id,
        media_samples=2 * 960,
        last_server_unix_ns=CALL_START_UNIX_NS + round(hours * HOUR_NS),
        **fields,
    )


def test_quiet_call_may_be_as_long_as_it_is(context: JobRun) -> None:
    plan, failures = _plan(context, _quiet("alice"), _quiet("bob"))

    assert failures == []
    assert plan.allowed_samples == 25 * HOUR
    assert (plan.allowed_mix_samples or 0) > 3 * HOUR
    assert all((source.allowed_samples or 0) > 3 * HOUR for source in plan.sources)


def test_call_has_no_more_hours_than_its_archives_allow(context: JobRun) -> None:
    parts = [
        _quiet("alice", archive_uri="/raw/a", allowed_samples=HOUR),
        _quiet("bob", archive_uri="/raw/a", allowed_samples=HOUR),
        _quiet("alice", archive_uri="/raw/b", allowed_samples=4 * HOUR),
    ]

    plan, _ = _plan(context, *parts)

    assert plan.allowed_samples == 5 * HOUR
    files = [source.allowed_samples or 0 for source in plan.sources]
    mix = plan.allowed_mix_samples or 0
    assert 3 * HOUR < mix < 3.1 * HOUR
    assert 4.99 * HOUR < mix + sum(files) <= 5 * HOUR


def test_hours_of_a_file_do_not_depend_on_what_a_run_is_about(context: JobRun) -> None:
    parts = [_quiet(name, allowed_samples=5 * HOUR) for name in ("alice", "bob", "carol")]
    narrowed = context.changed(filters=Filters(participants=("bob",)))

    whole, _ = _plan(context, *parts)
    (bob,) = _plan(narrowed, *parts)[0].sources

    assert bob.allowed_samples == whole.sources[1].allowed_samples


def test_what_is_not_written_takes_no_hours(context: JobRun) -> None:
    parts = [_quiet(name, allowed_samples=5 * HOUR) for name in ("alice", "bob")]
    settings = PressSettings(
        composite=CompositeSettings(enabled=False),
        individual=IndividualSettings(begin_with=BeginWith.TRACK),
    )

    plan, _ = _plan(context.changed(settings=settings), *parts)

    assert plan.allowed_mix_samples == 0
    assert [source.allowed_samples for source in plan.sources] == [2.5 * HOUR] * 2


# --- what is written ------------------------------------------------------------------------------


def test_whole_call_gets_a_mix_and_replaces_its_rows(context: JobRun) -> None:
    plan, _ = _plan(context, make_part())

    assert (plan.is_whole, plan.has_prior) == (True, False)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(participants=("bob",)), [("bob", "audio_only")]),
        (
            Filters(user_sessions=("sess-alice",)),
            [("alice", "audio_only"), ("alice", "screenshare_audio_only")],
        ),
        (
            Filters(output_types=(OutputType.SCREENSHARE_AUDIO_ONLY,)),
            [("alice", "screenshare_audio_only")],
        ),
        (Filters(participants=("bob",), output_types=(OutputType.SCREENSHARE_AUDIO_ONLY,)), []),
        (
            Filters(excluded_participants=("bob",)),
            [("alice", "audio_only"), ("alice", "screenshare_audio_only")],
        ),
        (Filters(participants=("bob",), excluded_participants=("bob",)), []),
        (Filters(track_ids=("t1",)), [("alice", "screenshare_audio_only")]),
        (Filters(track_ids=("t2", "t3")), [("bob", "audio_only")]),
        (Filters(track_ids=("t1",), participants=("bob",)), []),
        (Filters(track_ids=("alice",)), []),
    ],
    ids=[
        "participant",
        "user session",
        "output type",
        "both",
        "all but one",
        "nobody",
        "published track",
        "of an archive without packets",
        "other's track",
        "no track",
    ],
)
def test_filters_choose_tracks_and_make_no_mix(
    context: JobRun, filters: Filters, kept: list[tuple[str, str]]
) -> None:
    parts = [
        make_part(),
        make_part(output_type=OutputType.SCREENSHARE_AUDIO_ONLY, track_ids=("t0", "t1")),
        make_part("bob"),
        make_part("bob", archive_uri="/raw/b", has_packets=False, track_ids=("t2",)),
    ]

    plan, failures = _plan(context.changed(filters=filters), *parts)

    assert [
        (source.track.participant_id, source.track.output_type) for source in plan.sources
    ] == kept
    assert not plan.is_whole
    assert failures == []


def test_filters_do_not_move_time_zero(context: JobRun) -> None:
    parts = [
        make_part("alice", call_start_unix_ns=None),
        make_part(
            "bob", call_start_unix_ns=None, first_server_unix_ns=CALL_START_UNIX_NS + HOUR_NS
        ),
    ]

    plan, _ = _plan(context.changed(filters=Filters(participants=("bob",))), *parts)

    assert plan.timeline_start_unix_ns == CALL_START_UNIX_NS


def test_earlier_archive_that_is_gone_keeps_files_and_names_the_audio_that_is_not_in_them(
    context: JobRun,
) -> None:
    late = [
        make_part(archive_uri="/raw/late.tar.gz"),
        make_part("bob", archive_uri="/raw/late.tar.gz"),
    ]

    files = (("alice", "sess-alice", "audio_only"),)
    prior = PriorCall(
        timeline_start_unix_ns=CALL_START_UNIX_NS, files=files, mix_start_unix_ns=CALL_START_UNIX_NS
    )

    plan, failures = _plan(context, *late, prior=prior, missing=["/raw/gone.tar.gz"])

    assert [source.track.participant_id for source in plan.sources] == ["bob"]
    assert not plan.is_whole
    assert plan.archive_uris == ("/raw/gone.tar.gz", "/raw/late.tar.gz")
    (failure,) = failures
    assert (failure.participant_id, failure.archive_uri, failure.error_type) == (
        "alice",
        "/raw/late.tar.gz",
        "ArchiveError",
    )
    assert "without the audio of /raw/late.tar.gz" in failure.message
    assert "/raw/gone.tar.gz" in failure.message


# --- files that begin with the mix ----------------------------------------------------------------


@pytest.fixture
def side_by_side(context: JobRun) -> JobRun:
    individual = IndividualSettings(begin_with=BeginWith.MIX)
    return context.changed(settings=PressSettings(individual=individual))


@pytest.fixture
def parts(context: JobRun, tmp_path: Path) -> list[TrackPart]:
    """Alice 700 ms into the call, Bob 200 ms into it; her sound is on the shared screen."""
    people = [
        make_participant("alice", start_ms=700, track_type="TRACK_TYPE_SCREEN_SHARE_AUDIO"),
        make_participant("bob", start_ms=200),
    ]
    sources = stage_sources(context, write_call(tmp_path / "a.tar.gz", people))
    return [part for source in sources for part in source.parts]


def _begins(plan: CallPlan) -> dict[str, int | None]:
    return {source.track.participant_id: source.begin_unix_ns for source in plan.sources}


def test_files_begin_with_their_first_packets_unless_asked(
    context: JobRun, parts: list[TrackPart]
) -> None:
    assert _begins(_plan(context, *parts)[0]) == {"alice": None, "bob": None}


def test_files_begin_with_the_earliest_media_where_asked(
    side_by_side: JobRun, parts: list[TrackPart]
) -> None:
    plan, failures = _plan(side_by_side, *parts)

    assert failures == []
    start = CALL_START_UNIX_NS + 200 * MS_NS
    assert _begins(plan) == {
        "alice": pytest.approx(start, abs=MS_NS),
        "bob": pytest.approx(start, abs=MS_NS),
    }


def test_file_made_alone_begins_where_the_whole_call_does(
    side_by_side: JobRun, parts: list[TrackPart]
) -> None:
    plan, _ = _plan(side_by_side.changed(filters=Filters(participants=("alice",))), *parts)

    assert _begins(plan) == {"alice": pytest.approx(CALL_START_UNIX_NS + 200 * MS_NS, abs=MS_NS)}


def test_file_made_beside_a_mix_that_stays_begins_with_it(
    side_by_side: JobRun, parts: list[TrackPart]
) -> None:
    prior = PriorCall(
        timeline_start_unix_ns=CALL_START_UNIX_NS, mix_start_unix_ns=CALL_START_UNIX_NS - 5
    )

    plan, _ = _plan(side_by_side, *parts, prior=prior, missing=["/raw/gone.tar.gz"])

    assert set(_begins(plan).values()) == {CALL_START_UNIX_NS - 5}
    assert set(_begins(_plan(side_by_side, *parts, prior=prior)[0]).values()) != {
        CALL_START_UNIX_NS - 5
    }


def test_file_made_beside_files_that_stay_begins_with_their_first(
    side_by_side: JobRun, parts: list[TrackPart]
) -> None:
    prior = PriorCall(
        timeline_start_unix_ns=CALL_START_UNIX_NS, first_start_unix_ns=CALL_START_UNIX_NS - 7
    )

    plan, _ = _plan(side_by_side, *parts, prior=prior, missing=["/raw/gone.tar.gz"])

    assert set(_begins(plan).values()) == {CALL_START_UNIX_NS - 7}


def test_staged_parts_that_cannot_be_read_back_fail_their_tracks(
    side_by_side: JobRun, parts: list[TrackPart]
) -> None:
    Path(parts[0].index_uri).unlink()

    plan, failures = _plan(side_by_side, *parts)

    assert plan.sources == ()
    assert sorted((failure.participant_id or "", failure.error_type) for failure in failures) == [
        ("alice", "StorageError"),
        ("bob", "StorageError"),
    ]


# --- the clocks of servers ------------------------------------------------------------------------


def _watch(size_ns: int = -800 * MS_NS) -> ClockWatch:
    """Someone who was there for two minutes, and saw a step after one."""
    at_unix_ns = CALL_START_UNIX_NS + 60 * 10**9
    return ClockWatch(
        sightings=(
            StepSighting(
                since_unix_ns=at_unix_ns - 20 * MS_NS,
                at_unix_ns=at_unix_ns,
                size_ns=size_ns,
                noise_ns=MS_NS,
                is_lasting=True,
                is_stall=False,
            ),
        ),
        spans=(
            WatchedSpan(
                begin_unix_ns=CALL_START_UNIX_NS,
                stop_unix_ns=CALL_START_UNIX_NS + 120 * 10**9,
                least_step_ns=30 * MS_NS,
                ssrc=1,
                first_rtp_timestamp=0,
            ),
        ),
    )


def test_step_that_all_show_goes_with_every_part_of_its_archive(context: JobRun) -> None:
    parts = [
        make_part("alice", watch=_watch()),
        make_part("bob", watch=_watch()),
        make_part("carol", first_server_unix_ns=CALL_START_UNIX_NS + 100 * 10**9),
        make_part("dave", archive_uri="/raw/b.tar.gz"),
    ]
    plan, failures = _plan(context, *parts)

    assert (plan.server_clock_steps, failures) == (1, [])
    found = {source.track.participant_id: source.parts[0] for source in plan.sources}
    for name in ("alice", "bob", "carol"):
        (step,) = found[name].server_clock.steps
        assert step.size_ns == -800 * MS_NS
        assert found[name].files.server_clock == found[name].server_clock
    assert found["dave"].server_clock == ServerClock()
    # Who comes after is put back on the clock that the call began with.
    assert found["alice"].first_server_unix_ns == parts[0].first_server_unix_ns
    assert found["carol"].first_server_unix_ns == parts[2].first_server_unix_ns + 800 * MS_NS


def test_step_that_one_shows_alone_is_in_doubt_and_not_counted(context: JobRun) -> None:
    plan = _plan(context, make_part("alice", watch=_watch()), make_part("bob"))[0]

    assert plan.server_clock_steps == 0
    for source in plan.sources:
        (step,) = source.parts[0].server_clock.steps
        assert (step.size_ns, step.error_ns) == (0, 800 * MS_NS)


def test_step_that_others_deny_is_nobodys_clock(context: JobRun) -> None:
    small = _watch(-100 * MS_NS)
    alone = _plan(context, make_part("alice", watch=small), make_part("bob"))[0]
    denied = _plan(
        context,
        make_part("alice", watch=_watch()),
        make_part("bob", watch=_watch()),
        make_part("carol", watch=replace(_watch(), sightings=())),
    )[0]
    for plan in (alone, denied):
        assert plan.server_clock_steps == 0
        assert {source.parts[0].server_clock for source in plan.sources} == {ServerClock()}


def test_what_travels_of_clocks_is_small(context: JobRun, tmp_path: Path) -> None:
    (source,) = stage_sources(
        context, write_call(tmp_path / "a.tar.gz", [make_participant("alice", 3.0)])
    )
    assert source.parts[0].watch.spans
    assert len(pickle.dumps(source.parts[0])) < 3_000


# --- the transform --------------------------------------------------------------------------------


def _run(
    context: JobRun,
    parts: Sequence[TrackPart],
    plans: Check,
    *,
    calls: Sequence[Row] = (),
    tracks: Sequence[Row] = (),
    recordings: Sequence[Row] = (),
    failed: Sequence[Failure] = (),
    failures: Check = nothing,
) -> None:
    inputs = {
        "parts": parts,
        "calls": calls,
        "tracks": tracks,
        "recordings": recordings,
        "failures": failed,
    }
    with make_pipeline() as pipeline:
        planned: Any = {
            name: pipeline | name >> beam.Create(elements) for name, elements in inputs.items()
        } | PlanCalls(*context)
        expect(plans=(planned.plans, plans), failures=(planned.failures, failures))


def test_parts_are_grouped_by_call_session_and_put_in_order_of_time(context: JobRun) -> None:
    other = CallKey(call_type="default", call_id="standup", call_session_id="session-2")
    times = (("c", 5), ("b", 0), ("a", 0))
    c, b, a = [
        make_part(
            archive_uri=f"/raw/{name}.zip", first_server_unix_ns=CALL_START_UNIX_NS + second * 10**9
        )
        for name, second in times
    ]
    alone = make_part(call=other)

    _run(
        context, [c, alone, b, a], equal_to([_plan(context, a, b, c)[0], _plan(context, alone)[0]])
    )


def test_sources_are_shuffled_unchanged(context: JobRun) -> None:
    plan, _ = _plan(context, make_part(), _silent())

    with make_pipeline() as pipeline:
        expect(sources=(pipeline | beam.Create(plan.sources), equal_to(plan.sources)))


def test_track_that_cannot_take_part_reaches_the_failed_output(context: JobRun) -> None:
    far = make_part("carol", first_server_unix_ns=CALL_START_UNIX_NS + 25 * HOUR_NS)
    parts = [make_part("alice"), make_part("bob"), far]
    plan, failures = _plan(context, *parts)

    _run(context, parts, equal_to([plan]), failures=equal_to(failures))


def test_prior_row_of_a_call_nobody_speaks_of_makes_no_plan(context: JobRun) -> None:
    failed = make_failure(stage=Stage.RECALL_ARCHIVES, call=CALL, archive_uri="/raw/gone.zip")

    _run(context, [], nothing, calls=[call_row()], tracks=[track_row("alice")], failed=[failed])
    assert archives_to_repeat(context.catalog_uri) == frozenset()


def test_plan_knows_what_the_catalog_has_of_its_call(context: JobRun) -> None:
    zero = to_time(CALL_START_UNIX_NS - HOUR_NS)
    tracks = [
        track_row("bob"),
        track_row("alice", status="partial"),
        track_row("mute", status="empty"),
    ]
    recordings = [recording_row(None, "/out/mix.mp3"), recording_row("alice", "/out/alice.mkv")]

    def check(plans: list[CallPlan]) -> None:
        (plan,) = plans
        assert plan.timeline_start_unix_ns == CALL_START_UNIX_NS - HOUR_NS
        assert plan.prior_tracks == (
            ("alice", "sess-alice", "audio_only"),
            ("bob", "sess-bob", "audio_only"),
        )
        assert plan.prior_files == (("alice", "sess-alice", "audio_only"),)
        assert (plan.has_prior, plan.has_prior_mix, plan.is_whole) == (True, True, True)

    _run(
        context,
        [make_part()],
        check,
        calls=[call_row(timeline_start_time=zero)],
        tracks=tracks,
        recordings=recordings,
    )


def test_call_of_the_catalog_is_noted_as_being_replaced_and_a_new_one_is_not(
    context: JobRun,
) -> None:
    other = CallKey(call_type="default", call_id="standup", call_session_id="session-2")
    parts = [
        make_part(),
        make_part(archive_uri="/raw/b.zip"),
        make_part(call=other, archive_uri="/raw/new.zip"),
    ]

    _run(context, parts, _are_two, calls=[call_row()])

    assert archives_to_repeat(context.catalog_uri) == {"/raw/a.tar.gz", "/raw/b.zip"}


def _are_two(plans: list[CallPlan]) -> None:
    assert len(plans) == 2


def test_earlier_archive_that_is_gone_is_learnt_from_its_failure(context: JobRun) -> None:
    failed = make_failure(stage=Stage.RECALL_ARCHIVES, call=CALL, archive_uri="/raw/gone.zip")
    recordings = [recording_row("alice", "/out/alice.mkv"), recording_row(None, "/out/mix.mp3")]

    def check(plans: list[CallPlan]) -> None:
        (plan,) = plans
        assert [source.track.participant_id for source in plan.sources] == ["bob"]
        assert not plan.is_whole

    def check_failures(failures: list[Failure]) -> None:
        assert [(failure.stage, failure.participant_id) for failure in failures] == [
            ("PlanCalls", "alice")
        ]

    _run(
        context,
        [make_part(), make_part("bob")],
        check,
        calls=[call_row()],
        recordings=recordings,
        failed=[failed],
        failures=check_failures,
    )


def test_other_failures_do_not_stop_the_mix(context: JobRun) -> None:
    of_this_run = make_failure(call=CALL, archive_uri="/raw/b.zip")
    of_no_call = make_failure(stage=Stage.RECALL_ARCHIVES, archive_uri="/raw/b.zip")

    _run(
        context,
        [make_part()],
        equal_to([_plan(context, make_part())[0]]),
        failed=[of_this_run, of_no_call],
    )
