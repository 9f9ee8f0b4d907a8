"""UnpackArchives and RecallArchives: archives -> staged parts of tracks."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import apache_beam as beam
import pytest

from tests.support.beam import (
    CALL,
    CALL_START_UNIX_NS,
    Check,
    anything,
    archive_row_of,
    call_row,
    count_of,
    expect,
    list_files,
    make_part,
    make_participant,
    make_pipeline,
    nothing,
    refer_to,
    speak,
    write_call,
)
from tests.support.builders import (
    Participant,
    Segment,
    make_call_archive,
    make_call_members,
    write_folder,
)
from tests.support.job_run import JobRun
from transforms.elements import ArchiveRef, ArchiveSummary, Failure, Row, Stage, TrackPart
from transforms.engine import progress
from transforms.filters import Filters
from transforms.media.settings import LimitSettings, PressSettings
from transforms.media.track.staged_packets import load_index
from transforms.media.values import CallKey, OutputType
from transforms.media.wall_time import to_time
from transforms.recall_archives import FindRecalled, RecallArchives
from transforms.unpack_archives import UnpackArchives

SCREEN = "TRACK_TYPE_SCREEN_SHARE_AUDIO"
OTHER_CALL = CallKey(call_type="default", call_id="retro", call_session_id="session-9")


def _run(
    context: JobRun,
    refs: Sequence[ArchiveRef],
    *,
    parts: Check = anything,
    failures: Check = nothing,
    archives: Check = anything,
) -> Any:
    pipeline = make_pipeline()
    unpacked = pipeline | beam.Create(refs) | UnpackArchives(*context)
    expect(
        parts=(unpacked.parts, parts),
        failures=(unpacked.failures, failures),
        archives=(unpacked.archives, archives),
    )
    result = pipeline.run()
    result.wait_until_finish()
    return result


def _tracks(parts: Sequence[TrackPart]) -> list[tuple[str, str]]:
    return sorted((part.participant_id, str(part.output_type)) for part in parts)


def _digests(folder: str) -> dict[str, str]:
    return {
        name: hashlib.sha256(Path(folder, name).read_bytes()).hexdigest()
        for name in list_files(folder)
    }


# --- UnpackArchives -------------------------------------------------------------------------------


def test_each_session_and_track_type_becomes_a_part_with_staged_packets(
    context: JobRun, tmp_path: Path
) -> None:
    alice = Participant(
        participant_id="alice",
        segments=[
            Segment(packets=speak(1.0), start_ms=500),
            Segment(packets=speak(0.5), track_type=SCREEN, ssrc=7),
        ],
    )
    ref = write_call(tmp_path / "a.tar.gz", [alice, make_participant("bob", 2.0)])

    def check(parts: list[TrackPart]) -> None:
        assert _tracks(parts) == [
            ("alice", "audio_only"),
            ("alice", "screenshare_audio_only"),
            ("bob", "audio_only"),
        ]
        part = next(
            part for part in parts if part.track and part.track.output_type == OutputType.AUDIO_ONLY
        )
        assert (part.call, part.call_start_unix_ns) == (CALL, CALL_START_UNIX_NS)
        assert (part.archive_uri, part.archive_fingerprint) == (ref.uri, ref.fingerprint)
        assert part.archive_modified_unix_ns == ref.modified_unix_ns
        by_name = {
            part.participant_id: part for part in parts if part.output_type == OutputType.AUDIO_ONLY
        }
        assert by_name["alice"].media_samples == 48_000
        assert by_name["bob"].media_samples == 96_000
        assert (
            abs(by_name["alice"].first_server_unix_ns - CALL_START_UNIX_NS - 500_000_000)
            < 5_000_000
        )
        for part in parts:
            assert Path(part.packets_uri).is_relative_to(context.staging_uri)
            index = load_index(Path(part.index_uri).read_bytes())
            assert (
                sum(packet_run.packet_count for packet_run in index.packet_runs) * 960
                == part.media_samples
            )

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        (summary,) = summaries
        assert (summary.ref, summary.is_complete, summary.could_read) == (ref, True, True)
        assert (summary.member_count, summary.track_count, summary.calls) == (8, 3, (CALL,))
        assert (summary.first_failure, summary.bytes_read) == (None, ref.size_bytes)
        assert summary.cpu_ns > 0

    result = _run(context, [ref], parts=check, archives=check_archives)

    assert count_of(result, "parts_staged") == 3
    assert count_of(result, "archive_bytes") == ref.size_bytes
    assert {name.split("/")[0] for name in list_files(context.staging_uri)} == {
        "packets",
        "bundles",
    }


def test_all_containers_hold_the_same(context: JobRun, tmp_path: Path, store: ModuleType) -> None:
    """A tar, a gzipped tar, a zip, a folder, and archives in an object store."""
    people = [make_participant("alice"), make_participant("bob", 0.5)]
    refs = [
        write_call(tmp_path / f"call.{kind}", people, kind=kind)
        for kind in ("tar.gz", "tar", "zip")
    ]
    write_folder(tmp_path / "call [1] *", make_call_members(people, folder="deep/"))
    refs.append(refer_to(f"{tmp_path}/call [1] */"))
    for kind in ("tar.gz", "zip"):
        refs.append(
            refer_to(store.put(f"fake://bucket/call.{kind}", make_call_archive(people, kind=kind)))
        )
    for name, data in make_call_members(people).items():
        store.put(f"fake://bucket/call/{name}", data)
    refs.append(refer_to("fake://bucket/call/"))

    def check(parts: list[TrackPart]) -> None:
        found: dict[str, list[TrackPart]] = {}
        for part in parts:
            found.setdefault(part.archive_uri, []).append(part)
        assert set(found) == {ref.uri for ref in refs}
        packets = {
            tuple(sorted(Path(part.packets_uri).read_bytes() for part in own))
            for own in found.values()
        }
        assert len(packets) == 1
        assert {tuple(_tracks(own)) for own in found.values()} == {
            (("alice", "audio_only"), ("bob", "audio_only"))
        }

    _run(context, refs, parts=check)


@pytest.mark.slow
def test_retried_bundle_stages_the_same_objects(context: JobRun, tmp_path: Path) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice"), make_participant("bob")])
    _run(context, [ref])
    first = _digests(context.staged("packets"))

    _run(context, [ref])

    assert _digests(context.staged("packets")) == first
    assert len(first) == 4


def test_unreadable_archive_is_a_failure_and_the_others_go_on(
    context: JobRun, tmp_path: Path
) -> None:
    good = write_call(tmp_path / "good.zip", [make_participant("alice")], kind="zip")
    (tmp_path / "bad.zip").write_bytes(b"not an archive at all" * 100)
    bad = refer_to(str(tmp_path / "bad.zip"), attempt=2)

    def check_failures(failures: list[Failure]) -> None:
        (failure,) = failures
        assert (failure.stage, failure.error_type, failure.archive_uri) == (
            "UnpackArchives",
            "ArchiveError",
            bad.uri,
        )
        assert (failure.call, failure.attempt, failure.retryable) == (None, 2, False)
        assert failure.archive_modified_unix_ns == bad.modified_unix_ns
        assert "expected tar, gzipped tar or zip" in failure.message

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        by_uri = {summary.ref.uri: summary for summary in summaries}
        assert set(by_uri) == {good.uri, bad.uri}
        assert by_uri[good.uri].could_read
        summary = by_uri[bad.uri]
        assert (
            summary.could_read,
            summary.is_complete,
            summary.member_count,
            summary.track_count,
        ) == (False, True, None, 0)
        assert summary.first_failure is not None
        assert summary.first_failure.error_type == "ArchiveError"

    result = _run(
        context,
        [good, bad],
        parts=lambda parts: _expect_tracks(parts, [("alice", "audio_only")]),
        failures=check_failures,
        archives=check_archives,
    )

    assert count_of(result, "failures") == 1


def _expect_tracks(parts: list[TrackPart], expected: list[tuple[str, str]]) -> None:
    assert _tracks(parts) == expected


def test_archive_that_is_gone_is_a_storage_error(
    context: JobRun, tmp_path: Path, store: ModuleType
) -> None:
    here = write_call(tmp_path / "a.zip", [make_participant("alice")], kind="zip")
    Path(here.uri).unlink()
    there = refer_to(store.put("fake://bucket/a.zip", b"PK"))
    del store.OBJECTS[there.uri]

    def check(failures: list[Failure]) -> None:
        assert sorted(
            (failure.archive_uri, failure.error_type, failure.retryable) for failure in failures
        ) == [
            (here.uri, "StorageError", True),
            (there.uri, "StorageError", True),
        ]

    _run(context, [here, there], parts=nothing, failures=check)


def test_segment_without_its_dump_fails_alone_and_is_named(context: JobRun, tmp_path: Path) -> None:
    bob = Participant(
        participant_id="bob",
        segments=[Segment(packets=speak(), with_dump=False, base_filename="bob_1")],
    )
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice"), bob])

    def check_failures(failures: list[Failure]) -> None:
        (failure,) = failures
        assert (failure.member, failure.error_type, failure.call) == (
            "bob_1.rtpdump",
            "ArchiveError",
            CALL,
        )
        assert (failure.participant_id, failure.user_session_id, failure.output_type) == (
            "bob",
            "sess-bob",
            "audio_only",
        )

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        (summary,) = summaries
        assert summary.could_read
        assert summary.first_failure is not None
        assert summary.first_failure.member == "bob_1.rtpdump"
        assert summary.track_count == 1

    _run(
        context,
        [ref],
        parts=lambda parts: _expect_tracks(parts, [("alice", "audio_only"), ("bob", "audio_only")]),
        failures=check_failures,
        archives=check_archives,
    )


def test_session_that_sentnothing_and_track_without_packets_are_told(
    context: JobRun, tmp_path: Path
) -> None:
    people = [
        Participant(participant_id="mute"),
        Participant(participant_id="dumb", segments=[Segment(packets=[])]),
    ]
    ref = write_call(tmp_path / "a.tar.gz", people)

    def check(parts: list[TrackPart]) -> None:
        assert _tracks(parts) == [("dumb", "audio_only"), ("mute", "None")]
        assert {part.packets_uri for part in parts} == {""}
        assert {part.call for part in parts} == {CALL}

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        assert [
            (summary.track_count, summary.calls, summary.is_complete) for summary in summaries
        ] == [(0, (CALL,), True)]

    _run(context, [ref], parts=check, archives=check_archives)


def _two_calls(path: Path) -> ArchiveRef:
    """An archive with one session of each of two calls."""
    members = make_call_members([make_participant("alice", base_filename="alice_1")], folder="one/")
    members |= make_call_members(
        [make_participant("bob", base_filename="bob_1")],
        call_id="retro",
        call_session_id="session-9",
        folder="two/",
    )
    return refer_to(str(write_folder(path, members) and path) + "/")


def test_call_filter_takes_only_that_call_and_the_archive_is_not_done(
    context: JobRun, tmp_path: Path
) -> None:
    ref = _two_calls(tmp_path / "calls")
    filtered = context.changed(filters=Filters(calls=("default:retro",)))

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        assert [(summary.is_complete, summary.track_count) for summary in summaries] == [(False, 1)]

    _run(
        filtered,
        [ref],
        parts=lambda parts: _expect_tracks(parts, [("bob", "audio_only")]),
        archives=check_archives,
    )


@pytest.mark.parametrize(
    "filters",
    [
        Filters(excluded_calls=("default:stand*",)),
        Filters(calls=("default:*",), excluded_calls=("default:standup",)),
    ],
)
def test_call_that_is_left_out_leaves_its_archive_not_done(
    context: JobRun, tmp_path: Path, filters: Filters
) -> None:
    ref = _two_calls(tmp_path / "calls")

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        assert [(summary.is_complete, summary.track_count) for summary in summaries] == [(False, 1)]

    _run(
        context.changed(filters=filters),
        [ref],
        parts=lambda parts: _expect_tracks(parts, [("bob", "audio_only")]),
        archives=check_archives,
    )


@pytest.mark.parametrize(
    "filters",
    [
        Filters(calls=("default:standup",)),
        Filters(calls=("default:s*",), excluded_calls=("default:retro", "x:*")),
    ],
)
def test_call_filter_that_takes_all_of_an_archive_leaves_it_done(
    context: JobRun, tmp_path: Path, filters: Filters
) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        assert [summary.is_complete for summary in summaries] == [True]

    _run(context.changed(filters=filters), [ref], archives=check_archives)


@pytest.mark.parametrize(
    ("filters", "is_done"),
    [(Filters(calls=("default:*",)), False), (Filters(excluded_calls=("default:*",)), True)],
)
def test_unusable_archive_may_be_what_was_asked_for_and_is_not_what_is_left_out(
    context: JobRun, tmp_path: Path, filters: Filters, is_done: bool
) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        assert [(each.could_read, each.is_complete) for each in summaries] == [(False, is_done)]

    _run(
        context.changed(filters=filters),
        [refer_to(str(tmp_path / "a.tar.gz"))],
        failures=anything,
        archives=check_archives,
    )


@pytest.mark.parametrize(
    ("track_ids", "told"),
    [((), []), (("t24", "none"), ["t24", *(f"t{n:02}" for n in range(20))]), (("none",), None)],
)
def test_published_tracks_of_a_part_are_told_to_a_run_that_asks_for_some(
    context: JobRun, tmp_path: Path, track_ids: tuple[str, ...], told: list[str] | None
) -> None:
    """Those it asks for, and a few others; also of segments that have no dump."""
    segments = [
        Segment(packets=speak(0.1), start_ms=500 * n, track_id=f"t{n:02}", with_dump=n == 0)
        for n in range(25)
    ]
    ref = write_call(
        tmp_path / "a.tar.gz", [Participant(participant_id="alice", segments=segments)]
    )

    def check(parts: list[TrackPart]) -> None:
        expected = [f"t{n:02}" for n in range(20)] if told is None else told
        assert [list(part.track_ids) for part in parts] == [expected]

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        (summary,) = summaries
        assert summary.is_complete is not bool(track_ids)
        assert (summary.first_failure is None) is bool(track_ids), "its call tells"

    _run(
        context.changed(filters=Filters(track_ids=track_ids)),
        [ref],
        parts=check,
        failures=anything,
        archives=check_archives,
    )


def test_track_filter_unpacks_the_whole_call_and_the_archive_is_not_done(
    context: JobRun, tmp_path: Path
) -> None:
    """Who else is in the call decides on its time line."""
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice"), make_participant("bob")])
    filtered = context.changed(filters=Filters(participants=("bob",)))

    def check_archives(summaries: list[ArchiveSummary]) -> None:
        assert [summary.is_complete for summary in summaries] == [False]

    _run(
        filtered,
        [ref],
        parts=lambda parts: _expect_tracks(parts, [("alice", "audio_only"), ("bob", "audio_only")]),
        archives=check_archives,
    )


def test_limit_on_members_is_a_failure(context: JobRun, tmp_path: Path) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])
    limited = context.changed(settings=PressSettings(limits=LimitSettings(max_members=2)))

    def check(failures: list[Failure]) -> None:
        limit, unlisted = [failure.message for failure in failures]
        assert limit == "more than 2 members (limits.max_members)"
        assert "no timing metadata lists this dump" in unlisted  # it was to come behind

    _run(limited, [ref], parts=nothing, failures=check)


def test_staging_that_cannot_be_written_is_a_failure_of_the_archive(
    context: JobRun, tmp_path: Path
) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])
    packets = Path(context.staging_uri, "packets")
    packets.parent.mkdir(parents=True)
    packets.write_bytes(b"a file where a folder should be")

    def check(failures: list[Failure]) -> None:
        assert [(failure.error_type, failure.archive_uri) for failure in failures] == [
            ("StorageError", ref.uri)
        ]

    _run(context, [ref], parts=nothing, failures=check)


def test_progress_tells_archives_tracks_and_failures(context: JobRun, tmp_path: Path) -> None:
    good = write_call(
        tmp_path / "good.zip", [make_participant("alice"), make_participant("bob")], kind="zip"
    )
    (tmp_path / "bad.zip").write_bytes(b"nothing")
    told: dict[str, int] = {}

    def hear(what: str, count: int) -> None:
        told[what] = told.get(what, 0) + count

    stop = progress.listen(hear)
    _run(context, [good, refer_to(str(tmp_path / "bad.zip"))], failures=anything)
    stop()

    size_bytes = good.size_bytes + len(b"nothing")
    assert told.pop("samples_unpacked") == 2 * 48_000
    assert told == {
        "archives": 2, "tracks_found": 2, "failures": 1, "bytes_done": size_bytes,
        "bytes_unpacked": good.size_bytes,
    }  # fmt: skip


# --- RecallArchives -------------------------------------------------------------------------------


def _recall(
    context: JobRun,
    parts: Sequence[TrackPart],
    prior: Sequence[Row],
    *,
    recalled: Check,
    failures: Check = nothing,
    rows: Sequence[Row] = (),
) -> None:
    with make_pipeline() as pipeline:
        wanted = (
            pipeline | "Parts" >> beam.Create(parts),
            pipeline | "Prior" >> beam.Create(prior),
        ) | RecallArchives()
        found = (
            {"wanted": wanted, "rows": pipeline | "Rows" >> beam.Create(rows)}
            | FindRecalled(context.job)
            | "UnpackRecalled" >> UnpackArchives(*context)
        )
        expect(
            parts=(found.parts, recalled),
            failures=(found.failures, failures),
            archives=(found.archives, nothing),
        )


def test_earlier_archive_of_a_touched_call_is_unpacked_for_that_call_only(
    context: JobRun, tmp_path: Path
) -> None:
    earlier = _two_calls(tmp_path / "earlier")
    now = make_part("bob", archive_uri="/raw/late.zip")

    def check(parts: list[TrackPart]) -> None:
        assert [(part.call, part.participant_id, part.archive_uri) for part in parts] == [
            (CALL, "alice", earlier.uri)
        ]
        assert Path(parts[0].packets_uri).exists()

    _recall(context, [now], [call_row(archive_uris=[earlier.uri, "/raw/late.zip"])], recalled=check)


def test_earlier_archive_of_two_touched_calls_is_unpacked_once_for_both(
    context: JobRun, tmp_path: Path
) -> None:
    earlier = _two_calls(tmp_path / "earlier")
    now = [
        make_part(archive_uri="/raw/late.zip"),
        make_part(archive_uri="/raw/late.zip", call=OTHER_CALL),
    ]
    prior = [call_row(archive_uris=[earlier.uri]), call_row(OTHER_CALL, archive_uris=[earlier.uri])]

    def check(parts: list[TrackPart]) -> None:
        assert sorted((part.call.call_id, part.participant_id) for part in parts) == [
            ("retro", "bob"),
            ("standup", "alice"),
        ]

    _recall(context, now, prior, recalled=check)


def test_archive_of_this_run_is_not_recalled(context: JobRun) -> None:
    _recall(context, [make_part()], [call_row(archive_uris=["/raw/a.tar.gz"])], recalled=nothing)


def test_call_that_is_new_recallsnothing(context: JobRun) -> None:
    _recall(context, [make_part()], [], recalled=nothing)


def test_prior_row_without_archives_recallsnothing(context: JobRun) -> None:
    _recall(context, [make_part()], [call_row(archive_uris=None)], recalled=nothing)


def test_earlier_archives_that_cannot_be_read_are_failures_of_each_call(
    context: JobRun, tmp_path: Path
) -> None:
    file, folder, unreadable = f"{tmp_path}/gone.zip", f"{tmp_path}/gone/", f"{tmp_path}/bad.zip"
    Path(unreadable).write_bytes(b"no archive")
    now = [
        make_part(archive_uri="/raw/late.zip"),
        make_part(archive_uri="/raw/late.zip", call=OTHER_CALL),
    ]
    prior = [
        call_row(archive_uris=[file, folder]),
        call_row(OTHER_CALL, archive_uris=[file, unreadable]),
    ]

    def check(failures: list[Failure]) -> None:
        assert {failure.stage for failure in failures} == {Stage.RECALL_ARCHIVES}
        found = sorted((failure.archive_uri, failure.call) for failure in failures)
        assert found == sorted(
            [(file, CALL), (file, OTHER_CALL), (folder, CALL), (unreadable, OTHER_CALL)]
        )

    _recall(context, now, prior, recalled=nothing, failures=check)


def test_earlier_archive_that_no_longer_holds_the_call_is_a_failure_of_it(
    context: JobRun, tmp_path: Path
) -> None:
    earlier = write_call(
        tmp_path / "a.zip", [make_participant("bob")], kind="zip", call_session_id="another"
    )

    def check(failures: list[Failure]) -> None:
        assert [(failure.stage, failure.archive_uri, failure.call) for failure in failures] == [
            (Stage.RECALL_ARCHIVES, earlier.uri, CALL)
        ]

    now = make_part(archive_uri="/raw/late.zip")
    _recall(
        context, [now], [call_row(archive_uris=[earlier.uri])], recalled=nothing, failures=check
    )


# --- what opens an archive ------------------------------------------------------------------------


def _copy_of(ref: ArchiveRef, copy: Path) -> ArchiveRef:
    copy.parent.mkdir(exist_ok=True)
    shutil.move(ref.uri, copy)
    return replace(ref, copy_uri=str(copy))


def test_archive_is_read_from_its_copy_and_told_by_its_own_name(
    context: JobRun, tmp_path: Path
) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])
    copied = _copy_of(ref, tmp_path / "copies" / "1")

    def check(parts: list[TrackPart]) -> None:
        assert [part.archive_uri for part in parts] == [ref.uri]

    def check_archives(archives: list[ArchiveSummary]) -> None:
        assert [summary.ref for summary in archives] == [copied]

    _run(context, [copied], parts=check, archives=check_archives)


def test_copy_that_is_gone_or_cut_is_not_read(context: JobRun, tmp_path: Path) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])
    cut = tmp_path / "cut"
    cut.write_bytes(b"cut")

    def check_archives(archives: list[ArchiveSummary]) -> None:
        assert [summary.ref for summary in archives] == [ref]  # whose row has no copy then

    _run(context, [replace(ref, copy_uri=str(cut))], archives=check_archives)


def test_link_opens_an_archive_and_goes_no_further(context: JobRun, tmp_path: Path) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])
    named = replace(ref, uri="/by/this/it/is/known", link=ref.uri)

    def check(parts: list[TrackPart]) -> None:
        assert [part.archive_uri for part in parts] == [named.uri]
        assert ref.uri not in str(parts)

    def check_archives(archives: list[ArchiveSummary]) -> None:
        assert [summary.ref for summary in archives] == [named.without_link()]

    _run(context, [named], parts=check, archives=check_archives)
    notes = [path.read_text() for path in Path(context.staging_uri).rglob("bundles/*")]
    assert notes
    assert not [note for note in notes if ref.uri in note]


def test_archive_that_was_not_copied_is_pressed_and_says_so(
    context: JobRun, tmp_path: Path
) -> None:
    ref = write_call(tmp_path / "a.tar.gz", [make_participant("alice")])
    refused = replace(ref, not_copied=f"{ref.uri} could not be copied: no permission")

    def check(failures: list[Failure]) -> None:
        (failure,) = failures
        assert (failure.stage, failure.error_type) == (Stage.COPY_ARCHIVES, "StorageError")
        assert (failure.message, failure.archive_uri) == (refused.not_copied, ref.uri)

    _run(context, [refused], failures=check)

    def check_once(failures: list[Failure]) -> None:
        assert [failure.stage for failure in failures] == [Stage.UNPACK_ARCHIVES]

    Path(ref.uri).write_bytes(b"no archive")  # then nobody misses its copy
    _run(context, [refused], parts=nothing, failures=check_once)


def test_earlier_archive_is_opened_by_its_copy_else_by_a_link_else_by_its_uri(
    context: JobRun, tmp_path: Path
) -> None:
    refs = [
        write_call(tmp_path / f"{name}.tar.gz", [make_participant(name)])
        for name in ("copied", "linked", "there")
    ]
    copied = _copy_of(refs[0], tmp_path / "copies" / "1")
    linked = refs[1]
    row = archive_row_of(copied, context, copy_uri=copied.copy_uri)
    rows = [
        {**row, "modified_time": to_time(CALL_START_UNIX_NS)},
        {**archive_row_of(refs[2], context), "copy_uri": None},
    ]
    known = "https://files.test/linked.tar.gz"
    wanted = [(uri, CALL.as_tuple()) for uri in (copied.uri, known, refs[2].uri)]

    def check(found: list[ArchiveRef]) -> None:
        assert sorted((ref.uri, ref.source, ref.copy_uri, ref.size_bytes) for ref in found) == [
            (copied.uri, copied.uri, copied.copy_uri, copied.size_bytes),
            (refs[2].uri, refs[2].uri, "", refs[2].size_bytes),
            (known, linked.uri, "", linked.size_bytes),
        ]
        assert {ref.recalled_for for ref in found} == {(CALL,)}

    with make_pipeline() as pipeline:
        recalled = {
            "wanted": pipeline | "Wanted" >> beam.Create(wanted),
            "rows": pipeline | "Rows" >> beam.Create(rows),
            "links": pipeline
            | "Links" >> beam.Create([(known, linked.uri), ("https://files.test/other", "/x")]),
        } | FindRecalled(context.job)
        expect(recalled=(recalled, check))
