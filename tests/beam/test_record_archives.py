"""RecordArchives: what became of each archive -> its row, and the failures that belong to no
call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import equal_to

from tests.support.beam import (
    CALL,
    CALL_DATE,
    CALL_START_UNIX_NS,
    Check,
    anything,
    expect,
    list_files,
    make_failure,
    make_pipeline,
    nothing,
    read_catalog,
    section_rows,
    stamp,
    write_rows,
)
from tests.support.job_run import JobRun
from transforms.catalog.merging import merge_partition
from transforms.catalog.rows.archives import archive_row
from transforms.context import VERSION
from transforms.elements import (
    ArchiveOutcome,
    ArchiveRef,
    ArchiveSummary,
    Failure,
    PutOffArchive,
    RecordedArchive,
    Row,
    SectionRef,
    Stage,
    Status,
)
from transforms.media.values import CallKey
from transforms.media.wall_time import to_time
from transforms.record_archives import RecordArchives

DAY_NS = 86_400 * 10**9
NOW_NS = CALL_START_UNIX_NS + DAY_NS


def _summary(uri: str = "/raw/a", **fields: Any) -> ArchiveSummary:
    ref = ArchiveRef(
        uri=uri, size_bytes=7, modified_unix_ns=CALL_START_UNIX_NS, fingerprint="7-1", attempt=2
    )
    return ArchiveSummary(
        **{
            "ref": ref,
            "is_complete": True,
            "member_count": 5,
            "track_count": 2,
            "calls": (CALL,),
            "first_failure": None,
            "could_read": True,
            "bytes_read": 7,
            "cpu_ns": 11,
            **fields,
        }
    )


def _outcome(
    uri: str = "/raw/a",
    made: bool = True,
    failure: Failure | None = None,
    completed: CallKey | None = None,
) -> ArchiveOutcome:
    return ArchiveOutcome(
        archive_uri=uri, made_something=made, first_failure=failure, completed=completed
    )


def _unread(uri: str) -> tuple[ArchiveSummary, Failure]:
    failure = make_failure(archive_uri=uri, archive_modified_unix_ns=CALL_START_UNIX_NS)
    return _summary(
        uri, could_read=False, first_failure=failure, track_count=0, calls=(), member_count=None
    ), failure


# --- the row --------------------------------------------------------------------------------------


def test_archive_row_says_what_was_read_and_found() -> None:
    row = archive_row(_summary(), [_outcome()], [], NOW_NS)

    assert row == {
        "archive_uri": "/raw/a",
        "size_bytes": 7,
        "fingerprint": "7-1",
        "modified_time": to_time(CALL_START_UNIX_NS),
        "member_count": 5,
        "track_count": 2,
        "call_session_ids": ["session-1"],
        "status": "ok",
        "attempts": 2,
        "error_type": None,
        "error_message": None,
        "metadata_convention": None,
        "copy_uri": None,
        "processed_at": to_time(NOW_NS),
        "callpress_version": VERSION,
    }


PASSING = make_failure(error_type="StorageError", message="timed out", retryable=True)
LACKING = make_failure(call=CALL, lacks_segment="x")
DAMAGE = make_failure(error_type="RtpdumpError", message="damaged")


@pytest.mark.parametrize(
    ("summary", "outcomes", "failures", "status", "error_type"),
    [
        (_summary(), [_outcome()], [], "ok", None),
        (_summary(track_count=0), [_outcome(made=False)], [], "empty", None),
        (_summary(first_failure=DAMAGE), [_outcome()], [DAMAGE], "partial", "RtpdumpError"),
        (_summary(), [_outcome(failure=DAMAGE)], [], "partial", "RtpdumpError"),
        (_summary(), [_outcome(made=False, failure=DAMAGE)], [], "failed", "RtpdumpError"),
        (
            _summary(),
            [_outcome(made=False, failure=DAMAGE), _outcome()],
            [],
            "partial",
            "RtpdumpError",
        ),
        (
            _summary(could_read=False, first_failure=DAMAGE, track_count=0),
            [],
            [DAMAGE],
            "failed",
            "RtpdumpError",
        ),
        (_summary(first_failure=LACKING), [_outcome(completed=CALL)], [], "ok", None),
        (
            _summary(first_failure=LACKING, track_count=0),
            [_outcome(completed=CALL)],
            [],
            "ok",
            None,
        ),
        (_summary(first_failure=LACKING), [], [], "failed", "ArchiveError"),
        (
            _summary(first_failure=DAMAGE),
            [_outcome(failure=PASSING)],
            [],
            "partial",
            "StorageError",
        ),
    ],
    ids=[
        "ok",
        "empty",
        "member damaged",
        "track failed",
        "all failed",
        "one call of two",
        "unreadable",
        "brought by another",
        "all brought by another",
        "no call tells",
        "worst",
    ],
)
def test_archive_row_is_as_good_as_the_worst_of_it(
    summary: ArchiveSummary,
    outcomes: list[ArchiveOutcome],
    failures: list[Failure],
    status: str,
    error_type: str | None,
) -> None:
    row = archive_row(summary, outcomes, failures, NOW_NS)

    assert (row["status"], row["error_type"]) == (status, error_type)
    assert (row["error_message"] is None) == (error_type is None)


# --- the transform --------------------------------------------------------------------------------


def _run(
    context: JobRun,
    summaries: Sequence[ArchiveSummary],
    *,
    outcomes: Sequence[ArchiveOutcome] = (),
    failures: Sequence[Failure] = (),
    prior: Sequence[Row] = (),
    put_off: Sequence[PutOffArchive] = (),
    archives: Check = anything,
    sections: Check = anything,
) -> None:
    inputs = (summaries, outcomes, failures, prior, put_off)
    with make_pipeline() as pipeline:
        created = tuple(
            pipeline | str(number) >> beam.Create(elements)
            for number, elements in enumerate(inputs)
        )
        recorded = created | RecordArchives(*context)
        expect(archives=(recorded.archives, archives), sections=(recorded.sections, sections))


def _told(
    sections: Sequence[SectionRef],
) -> dict[tuple[str, str, bool], dict[tuple[str, ...], int]]:
    """Returns, by table, date and whether they only remove, how many rows each owner gets."""
    return {
        (each.table, each.call_date, each.only_removes): {
            key: len(rows) for key, rows in section_rows(each).items()
        }
        for each in sections
    }


def test_archives_are_recorded_with_the_failures_of_no_call(context: JobRun) -> None:
    bad, failure = _unread("/raw/bad")
    bad = replace(bad, ref=replace(bad.ref, is_known_failure=True))
    of_call = make_failure(archive_uri="/raw/a", call=CALL)

    def check(sections: list[SectionRef]) -> None:
        of = {section.table: section for section in sections}
        assert {table: (each.call_date, each.row_count) for table, each in of.items()} == {
            "archives": (CALL_DATE, 2),
            "failures": (CALL_DATE, 1),
        }
        owned = {table: section_rows(section) for table, section in of.items()}
        assert all(set(found) == {("/raw/a",), ("/raw/bad",)} for found in owned.values())
        rows = {uri: found[0] for (uri,), found in owned["archives"].items()}
        assert {uri: row["status"] for uri, row in rows.items()} == {
            "/raw/a": "ok",
            "/raw/bad": "failed",
        }
        assert {row["callpress_version"] for row in rows.values()} == {VERSION}
        assert rows["/raw/a"]["run_id"] == context.run_id
        assert rows["/raw/a"]["settings_fingerprint"] == context.settings_fingerprint
        (found,) = owned["failures"][("/raw/bad",)]
        assert (found["archive_uri"], found["call_session_id"]) == ("/raw/bad", None)

    _run(
        context,
        [_summary(), bad],
        outcomes=[_outcome()],
        failures=[failure, of_call],
        archives=equal_to(
            [
                RecordedArchive(
                    status=Status.OK, bytes_read=7, cpu_ns=11, failure_count=0, is_first_time=True
                ),
                RecordedArchive(
                    status=Status.FAILED,
                    bytes_read=7,
                    cpu_ns=11,
                    failure_count=1,
                    is_first_time=False,
                ),
            ]
        ),
        sections=check,
    )


def test_archives_go_to_the_date_of_their_modification(context: JobRun) -> None:
    later = _summary("/raw/b")
    later = replace(later, ref=replace(later.ref, modified_unix_ns=CALL_START_UNIX_NS + DAY_NS))

    def check(sections: list[SectionRef]) -> None:
        assert _told(sections) == {
            (table, f"2026-01-{day}", False): {(uri,): 1 if table == "archives" else 0}
            for table in ("archives", "failures")
            for day, uri in (("05", "/raw/a"), ("06", "/raw/b"))
        }

    _run(context, [_summary(), later], outcomes=[_outcome(), _outcome("/raw/b")], sections=check)


def test_archive_recorded_under_another_date_is_removed_there(context: JobRun) -> None:
    prior: list[dict[str, Any]] = [
        {"archive_uri": "/raw/a", "call_date": "2026-01-03"},
        {"archive_uri": "/raw/a", "call_date": CALL_DATE},
        {"archive_uri": "/raw/a", "call_session_id": None, "call_date": "2026-01-02"},
        {"archive_uri": "/raw/a", "call_session_id": "session-1", "call_date": "2026-01-01"},
    ]

    def check(sections: list[SectionRef]) -> None:
        assert _told(sections) == {
            ("archives", CALL_DATE, False): {("/raw/a",): 1},
            ("failures", CALL_DATE, False): {("/raw/a",): 0},
            **{
                (table, date, True): {("/raw/a",): 0}
                for table in ("archives", "failures")
                for date in ("2026-01-02", "2026-01-03")
            },
        }

    _run(context, [_summary()], outcomes=[_outcome()], prior=prior, sections=check)


def test_archive_that_was_not_wanted_whole_keeps_its_row(context: JobRun) -> None:
    """A run about some tracks or calls only does not record an archive as done, nor forget that it
    was.
    """
    write_rows(context, "archives", [stamp({"archive_uri": "/raw/a", "status": "partial"})])
    old = stamp(
        {
            "archive_uri": "/raw/a",
            "call_session_id": None,
            "stage": "UnpackArchives",
            "message": "old",
        }
    )
    write_rows(context, "failures", [old])
    catalog_uri = context.catalog_uri

    def check(sections: list[SectionRef]) -> None:
        for section in sections:
            merge_partition(catalog_uri, section.table, section.call_date, [section])

    _run(
        context,
        [_summary(is_complete=False), _summary("/raw/b")],
        outcomes=[_outcome(), _outcome("/raw/b")],
        failures=[make_failure(archive_uri="/raw/a", message="new")],
        prior=[{"archive_uri": "/raw/a", "call_date": CALL_DATE}],
        sections=check,
    )

    statuses = {row["archive_uri"]: row["status"] for row in read_catalog(context, "archives")}
    assert statuses == {"/raw/a": "partial", "/raw/b": "ok"}
    assert [row["message"] for row in read_catalog(context, "failures")] == ["new"]


@pytest.mark.parametrize(
    ("stage", "is_first_time"),
    [(None, True), ("UnpackArchives", True), ("ListArchives", False)],
    ids=["never seen", "was read and failed", "was not to be looked at before"],
)
def test_failure_of_an_archive_that_was_never_unpacked_is_recorded(
    context: JobRun, stage: str | None, is_first_time: bool
) -> None:
    failure = make_failure(
        stage=Stage.LIST_ARCHIVES, archive_uri="/raw/x", archive_modified_unix_ns=CALL_START_UNIX_NS
    )

    def check(sections: list[SectionRef]) -> None:
        (section,) = sections
        assert (section.table, section.call_date) == ("failures", CALL_DATE)
        ((row,),) = section_rows(section).values()
        assert (row["archive_uri"], row["stage"]) == ("/raw/x", "ListArchives")

    _run(
        context,
        [],
        failures=[failure],
        archives=equal_to(
            [
                RecordedArchive(
                    status=Status.FAILED,
                    bytes_read=0,
                    cpu_ns=0,
                    failure_count=1,
                    is_first_time=is_first_time,
                )
            ]
        ),
        prior=[
            {
                "archive_uri": "/raw/x",
                "call_date": CALL_DATE,
                "stage": stage,
                "call_session_id": None,
            }
        ]
        if stage
        else [],
        sections=check,
    )


def _list_failure(call_date: str, archive_uri: str = "/raw/x/") -> Row:
    return {"archive_uri": archive_uri, "call_date": call_date, "stage": "ListArchives"}


def test_failure_of_what_cannot_be_listed_goes_from_its_former_date(context: JobRun) -> None:
    failure = make_failure(
        stage=Stage.LIST_ARCHIVES,
        archive_uri="/raw/x/",
        archive_modified_unix_ns=CALL_START_UNIX_NS,
    )

    def check(sections: list[SectionRef]) -> None:
        assert _told(sections) == {
            ("failures", "2026-01-03", True): {("/raw/x/",): 0},
            ("failures", CALL_DATE, False): {("/raw/x/",): 1},
        }

    prior = [_list_failure("2026-01-03"), _list_failure(CALL_DATE)]
    _run(context, [], failures=[failure], prior=prior, archives=anything, sections=check)


def test_each_entry_of_a_manifest_that_cannot_be_read_counts_as_an_archive(
    context: JobRun,
) -> None:
    failures = [
        make_failure(
            stage=Stage.READ_MANIFESTS,
            archive_uri="/list.json",
            member=f"recordings[{number}]",
            archive_modified_unix_ns=CALL_START_UNIX_NS,
        )
        for number in range(3)
    ]

    def check(sections: list[SectionRef]) -> None:
        assert _told(sections) == {("failures", CALL_DATE, False): {("/list.json",): 3}}

    def count(archives: list[RecordedArchive]) -> None:
        assert [archive.status for archive in archives] == [Status.FAILED] * 3
        assert sum(archive.failure_count for archive in archives) == 3
        assert all(archive.is_first_time for archive in archives)

    _run(context, [], failures=failures, archives=count, sections=check)


def test_failures_of_a_manifest_go_when_it_can_be_read_again(context: JobRun) -> None:
    def check(sections: list[SectionRef]) -> None:
        assert _told(sections) == {("failures", CALL_DATE, True): {("/list.json",): 0}}

    prior = [{**_list_failure(CALL_DATE, "/list.json"), "stage": "ReadManifests"}]
    _run(context, [], prior=prior, archives=nothing, sections=check)


def test_failure_of_a_folder_goes_when_it_can_be_listed_again(context: JobRun) -> None:
    def check(sections: list[SectionRef]) -> None:
        assert _told(sections) == {("failures", CALL_DATE, True): {("/raw/x/",): 0}}

    _run(context, [], prior=[_list_failure(CALL_DATE)], archives=nothing, sections=check)


def test_rows_of_an_unpacked_folder_stay_when_an_archive_in_it_is_pressed(
    context: JobRun,
) -> None:
    prior = [
        {"archive_uri": "/raw/x/", "call_date": CALL_DATE},
        {"archive_uri": "/raw/x/", "call_date": CALL_DATE, "stage": "UnpackArchives"},
    ]

    _run(context, [], prior=prior, archives=nothing, sections=nothing)


def test_recalled_archive_keeps_its_row(context: JobRun) -> None:
    _run(
        context,
        [],
        outcomes=[_outcome("/raw/earlier")],
        prior=[{"archive_uri": "/raw/earlier", "call_date": "2026-01-03"}],
        archives=nothing,
        sections=nothing,
    )


_OF_CALL = {"call_type": "default", "call_id": "standup", "call_session_id": "session-1"}
_OTHER_CALL = {**_OF_CALL, "call_session_id": "session-2"}
_NO_CALL = dict.fromkeys(_OF_CALL)


@pytest.mark.parametrize(
    ("failures", "outcome", "status"),
    [
        ([_OF_CALL], _outcome(completed=CALL), "ok"),
        ([], _outcome(completed=CALL), "ok"),
        ([_OF_CALL, _OTHER_CALL], _outcome(completed=CALL), "partial"),
        ([_OF_CALL, _NO_CALL], _outcome(completed=CALL), "partial"),
        ([_OF_CALL], _outcome(completed=CALL, failure=DAMAGE), "partial"),
        ([_OF_CALL], _outcome(), "partial"),
    ],
    ids=["all", "all_told_before", "other_call", "no_call", "still_lacks", "nothing_brought"],
)
def test_recalled_archive_is_ok_when_others_brought_all_that_it_lacked(
    context: JobRun, failures: list[Row], outcome: ArchiveOutcome, status: str
) -> None:
    before, after = _recall(context, failures, outcome, "partial")

    error_type = None if status == "ok" else "ArchiveError"
    assert after == {**before, "status": status, "error_type": error_type}


def test_recalled_archive_that_waits_goes_on_waiting(context: JobRun) -> None:
    """A call of it was published by a run that put others off, and these are of no run yet."""
    before, after = _recall(context, [_OF_CALL], _outcome(completed=CALL), "waiting")

    assert after == before


def _recall(
    context: JobRun, failures: list[Row], outcome: ArchiveOutcome, status: str
) -> tuple[Row, Row]:
    """Records what became of an archive that was recalled; returns its row before and after."""
    row = {"archive_uri": "/raw/a", "status": status, "fingerprint": "7-1", "attempts": 2}
    write_rows(context, "archives", [stamp({**row, "error_type": "ArchiveError"})])
    (before,) = read_catalog(context, "archives")
    catalog_uri = context.catalog_uri

    def check(sections: list[SectionRef]) -> None:
        for section in sections:
            merge_partition(catalog_uri, section.table, section.call_date, [section])

    keys = [{"archive_uri": "/raw/a", "call_date": CALL_DATE, **failure} for failure in failures]
    _run(
        context,
        [],
        outcomes=[outcome],
        prior=[{"archive_uri": "/raw/a", "call_date": CALL_DATE}, *keys],
        archives=nothing,
        sections=check,
    )
    (after,) = read_catalog(context, "archives")
    return before, after


def test_many_archives_make_bundles_of_bounded_size(context: JobRun) -> None:
    count = 1_100

    def check(sections: list[SectionRef]) -> None:
        of_archives = [section for section in sections if section.table == "archives"]
        sizes = [section.row_count for section in of_archives]
        assert sum(sizes) == count
        assert max(sizes) <= 500
        assert len({section.uri for section in of_archives}) == len(of_archives)

    _run(context, [_summary(f"/raw/{number}") for number in range(count)], sections=check)


@pytest.mark.slow
def test_work_that_is_done_again_writes_the_same_bundle(context: JobRun) -> None:
    seen: list[tuple[str, bytes]] = []
    for _ in range(2):
        _run(context, [_summary(), _summary("/raw/b")], outcomes=[_outcome()], sections=anything)
        names = list_files(context.staged("bundles"))
        with open(context.staged("bundles", names[0]), "rb") as file:
            seen.append((names[0], file.read()))
        assert len(names) == 1

    assert seen[0] == seen[1]
