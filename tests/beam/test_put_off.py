"""What each step does once a run is to start no more, and what becomes of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import equal_to

from tests.support.beam import (
    CALL,
    CALL_DATE,
    Check,
    anything,
    call_row,
    expect,
    list_files,
    make_failure,
    make_part,
    make_participant,
    make_pipeline,
    make_plan,
    nothing,
    section_rows,
    stage_sources,
    write_call,
)
from tests.support.job_run import JobRun
from transforms.bounds import Bound, Bounds
from transforms.catalog.bundles import WrittenBundle
from transforms.catalog.pending_replacement import archives_to_repeat
from transforms.context import VERSION
from transforms.elements import (
    ArchiveOutcome,
    ArchiveRef,
    ArchiveSummary,
    CallPlan,
    DroppedFile,
    ExtractedTrack,
    PressedCall,
    PutOffArchive,
    PutOffTrack,
    RecordedArchive,
    Row,
    SectionRef,
    Status,
    TrackPart,
    TrackSource,
    put_off,
)
from transforms.extract_tracks import ExtractTracks
from transforms.filters import Filters
from transforms.media.wall_time import to_time
from transforms.mix_calls import MixCalls
from transforms.plan_calls import PlanCalls
from transforms.record_archives import RecordArchives
from transforms.recovery import completed_work
from transforms.unpack_archives import UnpackArchives


@pytest.fixture
def over(context: JobRun) -> JobRun:
    """A run that began long ago and was to stop at once."""
    return context.changed(bounds=Bounds(stop_after_seconds=0))


@pytest.fixture
def refs(tmp_path: Path) -> list[ArchiveRef]:
    return [
        write_call(tmp_path / "raw" / f"{name}.tar.gz", [make_participant(name)])
        for name in ("alice", "bob")
    ]


@pytest.fixture
def sources(over: JobRun, refs: list[ArchiveRef]) -> list[TrackSource]:
    """A track of each archive, of one call."""
    return [source for ref in refs for source in stage_sources(over, ref)]


# --- archives -------------------------------------------------------------------------------------


def test_no_archive_is_unpacked_any_more(over: JobRun, refs: list[ArchiveRef]) -> None:
    with make_pipeline() as pipeline:
        unpacked = pipeline | beam.Create(refs) | UnpackArchives(*over)
        expect(
            parts=(unpacked.parts, nothing),
            failures=(unpacked.failures, nothing),
            archives=(unpacked.archives, nothing),
            put_off=(
                unpacked.put_off,
                equal_to([PutOffArchive(ref=ref, by=Bound.STOP_AFTER) for ref in refs]),
            ),
        )

    assert list_files(over.staging_uri) == []


def test_run_whose_time_is_not_over_unpacks(context: JobRun, refs: list[ArchiveRef]) -> None:
    def check(parts: list[TrackPart]) -> None:
        assert len(parts) == 2

    with make_pipeline() as pipeline:
        later = context.changed(bounds=Bounds(stop_after_seconds=10**9))
        unpacked = pipeline | beam.Create(refs) | UnpackArchives(*later)
        expect(parts=(unpacked.parts, check), put_off=(unpacked.put_off, nothing))


def test_archive_of_an_earlier_run_is_read_all_the_same(
    over: JobRun, refs: list[ArchiveRef]
) -> None:
    """Its call is judged when it is planned: without it that would be made from fewer archives."""

    def check(parts: list[TrackPart]) -> None:
        assert [part.call for part in parts] == [CALL]

    with make_pipeline() as pipeline:
        earlier = replace(refs[0], recalled_for=(CALL,))
        unpacked = pipeline | beam.Create([earlier]) | UnpackArchives(*over)
        expect(parts=(unpacked.parts, check), put_off=(unpacked.put_off, nothing))


# --- calls ----------------------------------------------------------------------------------------


def test_no_call_is_planned_any_more_and_none_is_announced(over: JobRun) -> None:
    parts = [make_part(), make_part("bob"), make_part("bob", archive_uri="/raw/b.zip")]
    with make_pipeline() as pipeline:
        inputs: dict[str, Sequence[Any]] = {
            "parts": parts, "calls": [call_row()], "tracks": [], "recordings": [], "failures": [],
        }  # fmt: skip
        planned: Any = {
            name: pipeline | name >> beam.Create(elements) for name, elements in inputs.items()
        } | PlanCalls(*over)
        expect(
            plans=(planned.plans, nothing),
            failures=(planned.failures, nothing),
            put_off=(planned.put_off, equal_to([put_off("/raw/a.tar.gz"), put_off("/raw/b.zip")])),
        )

    assert archives_to_repeat(over.catalog_uri) == frozenset()


def test_no_track_is_extracted_any_more_but_of_a_call_that_is_being_replaced(
    over: JobRun, sources: list[TrackSource]
) -> None:
    alice, bob = sources[0], replace(sources[1], replaces_prior=True)

    def check(tracks: list[Any]) -> None:
        by_track = {track.track.participant_id: track for track in tracks}
        assert by_track["alice"] == PutOffTrack(track=alice.track)
        assert isinstance(by_track["bob"], ExtractedTrack)
        assert [Path(uri).exists() for uri in by_track["bob"].media_uris] == [True]

    with make_pipeline() as pipeline:
        extracted = pipeline | beam.Create([alice, bob]) | ExtractTracks(*over)
        expect(tracks=(extracted.tracks, check), failures=(extracted.failures, nothing))

    assert [name for name in list_files(over.output_uri) if "alice" in name] == []


def _put_off_alice(track: ExtractedTrack) -> ExtractedTrack | PutOffTrack:
    is_alice = track.track.participant_id == "alice"
    return PutOffTrack(track=track.track) if is_alice else track


def _mix(
    extracting: JobRun,
    mixing: JobRun,
    plan: CallPlan,
    *,
    loses_alice: bool = False,
    **checks: Check,
) -> None:
    with make_pipeline() as pipeline:
        plans = pipeline | "Plans" >> beam.Create([plan])
        failures = pipeline | "Failed" >> beam.Create(
            [make_failure(call=CALL, archive_uri=plan.archive_uris[0])]
        )
        extracted = plans | beam.FlatMap(lambda plan: plan.sources) | ExtractTracks(*extracting)
        tracks = extracted.tracks
        if loses_alice:
            tracks |= "LoseAlice" >> beam.Map(_put_off_alice)
        mixed = (plans, tracks, failures) | MixCalls(*mixing)
        expect(**{name: (mixed[name], check) for name, check in checks.items()})


@pytest.mark.parametrize("loses_alice", [False, True], ids=["before the mix", "before a track"])
def test_call_that_is_not_all_done_is_put_off_with_all_its_archives(
    context: JobRun, over: JobRun, sources: list[TrackSource], loses_alice: bool
) -> None:
    plan = make_plan(sources)

    def check(dropped: list[DroppedFile]) -> None:
        uris = [file.uri for file in dropped]
        assert all(Path(uri).suffix == ".mkv" and Path(uri).exists() for uri in uris)
        assert len(set(uris)) == (1 if loses_alice else 2)

    _mix(
        context,
        context if loses_alice else over,
        plan,
        loses_alice=loses_alice,
        calls=nothing,
        outcomes=equal_to([put_off(uri) for uri in plan.archive_uris]),
        unpublished=check,
    )

    bundles = completed_work.bundles_of(context.staging_uri)
    assert not any(completed_work.calls_in(WrittenBundle(uri)) for uri in bundles)
    assert not [name for name in list_files(context.output_uri) if "composite" in name]


def test_call_that_is_being_replaced_is_finished(over: JobRun, sources: list[TrackSource]) -> None:
    sources = [replace(source, replaces_prior=True) for source in sources]

    def check(calls: list[PressedCall]) -> None:
        assert [call.files_written for call in calls] == [3]

    _mix(over, over, make_plan(sources, has_prior=True), calls=check, unpublished=nothing)


# --- rows -----------------------------------------------------------------------------------------


REF = ArchiveRef(
    uri="/raw/a", size_bytes=7, modified_unix_ns=1_767_607_200 * 10**9, fingerprint="7-1", attempt=2
)
SUMMARY = ArchiveSummary(
    ref=REF, is_complete=True, member_count=5, track_count=2, calls=(CALL,), first_failure=None,
    could_read=True, bytes_read=7, cpu_ns=11,
)  # fmt: skip


def _record(
    context: JobRun,
    put_off_archives: Sequence[PutOffArchive] = (),
    *,
    archives: Check,
    sections: Check,
    summaries: Sequence[ArchiveSummary] = (),
    outcomes: Sequence[ArchiveOutcome] = (),
    prior: Sequence[Row] = (),
) -> None:
    inputs: Sequence[Any] = (summaries, outcomes, [], prior, put_off_archives)
    with make_pipeline() as pipeline:
        created = tuple(
            pipeline | str(number) >> beam.Create(elements)
            for number, elements in enumerate(inputs)
        )
        recorded = created | RecordArchives(*context)
        expect(archives=(recorded.archives, archives), sections=(recorded.sections, sections))


def _waits(by: Bound, **fields: Any) -> Check:
    archive = RecordedArchive(
        **{
            "status": Status.WAITING, "bytes_read": 0, "cpu_ns": 0, "failure_count": 0,
            "is_first_time": False, "put_off_by": by, **fields,
        }
    )  # fmt: skip
    check: Check = equal_to([archive])
    return check


def test_archive_that_is_put_off_gets_a_row_that_says_so(context: JobRun) -> None:
    def check(sections: list[SectionRef]) -> None:
        (section,) = sections  # failures of before stay
        assert (section.table, section.call_date) == ("archives", CALL_DATE)
        ((row,),) = section_rows(section).values()
        assert {name: value for name, value in row.items() if value is not None} == {
            "archive_uri": "/raw/a", "size_bytes": 7, "fingerprint": "7-1", "status": "waiting",
            "attempts": 0, "modified_time": to_time(REF.modified_unix_ns),
            "callpress_version": VERSION, "created_at": to_time(context.started_unix_ns),
            "run_id": context.run_id, "settings_fingerprint": context.settings_fingerprint,
        }  # fmt: skip

    _record(
        context,
        [PutOffArchive(ref=REF, by=Bound.MAX_BYTES)],
        archives=_waits(Bound.MAX_BYTES),
        sections=check,
    )


def test_archive_of_a_call_that_is_put_off_waits_as_a_whole(context: JobRun) -> None:
    def check(sections: list[SectionRef]) -> None:
        (section,) = sections
        ((row,),) = section_rows(section).values()
        assert (row["status"], row["attempts"], row["processed_at"]) == ("waiting", 0, None)

    done = replace(put_off("/raw/a"), is_put_off=False, made_something=True)
    _record(
        context,
        summaries=[SUMMARY],
        outcomes=[done, put_off("/raw/a")],
        archives=_waits(Bound.STOP_AFTER, bytes_read=7, cpu_ns=11),
        sections=check,
    )


def test_earlier_archive_of_a_call_that_is_put_off_keeps_its_row(context: JobRun) -> None:
    _record(context, outcomes=[put_off("/raw/a")], archives=nothing, sections=nothing)


def test_row_of_the_archive_as_it_is_stays(context: JobRun) -> None:
    prior = [{"archive_uri": "/raw/a", "fingerprint": "7-1", "call_date": CALL_DATE}]

    _record(
        context,
        [PutOffArchive(ref=REF, by=Bound.MAX_ARCHIVES)],
        prior=prior,
        archives=_waits(Bound.MAX_ARCHIVES),
        sections=nothing,
    )


def test_changed_archive_waits_and_its_row_under_another_date_goes(context: JobRun) -> None:
    prior: list[Row] = [
        {"archive_uri": "/raw/a", "fingerprint": "6-1", "call_date": "2026-01-03"},
        {"archive_uri": "/raw/a", "call_session_id": None, "stage": "UnpackArchives",
         "call_date": "2026-01-03"},
    ]  # fmt: skip

    def check(sections: list[SectionRef]) -> None:
        assert sorted(
            (each.table, each.call_date, each.only_removes, each.row_count) for each in sections
        ) == [("archives", "2026-01-03", True, 0), ("archives", CALL_DATE, False, 1)]

    _record(
        context,
        [PutOffArchive(ref=REF, by=Bound.MAX_ARCHIVES)],
        prior=prior,
        archives=_waits(Bound.MAX_ARCHIVES),
        sections=check,
    )


def test_run_that_leaves_calls_out_is_about_the_night(context: JobRun) -> None:
    """What it leaves waits; what has waited and is read, less those calls, waits no more."""
    night = context.changed(filters=Filters(excluded_calls=("support:*",)))
    waits = {"archive_uri": "/raw/a", "fingerprint": "7-1", "call_date": CALL_DATE}

    def check(sections: list[SectionRef]) -> None:
        assert [(each.table, each.row_count) for each in sections] == [("archives", 1)]

    _record(
        night,
        [PutOffArchive(ref=REF, by=Bound.MAX_ARCHIVES)],
        archives=_waits(Bound.MAX_ARCHIVES),
        sections=check,
    )

    def check_removed(sections: list[SectionRef]) -> None:
        assert [(e.table, e.call_date) for e in sections if e.only_removes] == [
            ("archives", CALL_DATE)
        ]

    def check_kept(sections: list[SectionRef]) -> None:
        assert "archives" not in [each.table for each in sections]

    read = replace(SUMMARY, is_complete=False, ref=replace(REF, is_waiting=True))
    new = replace(SUMMARY, is_complete=False)
    named = context.changed(filters=Filters(calls=("default:*",)))
    for run, summary, sections in (
        (night, read, check_removed), (night, new, check_kept), (named, read, check_kept)
    ):  # fmt: skip
        _record(run, summaries=[summary], prior=[waits], archives=anything, sections=sections)


def test_run_that_names_calls_leaves_no_row_of_what_it_did_not_look_at(context: JobRun) -> None:
    _record(
        context.changed(filters=Filters(calls=("default:standup",))),
        [PutOffArchive(ref=REF, by=Bound.MAX_ARCHIVES)],
        archives=_waits(Bound.MAX_ARCHIVES),
        sections=nothing,
    )
