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
    stamp,
    write_rows,
)
from tests.support.job_run import JobRun
from transforms.catalog.fragments import read_fragment
from transforms.catalog.merging import merge_partition
from transforms.catalog.rows.archives import archive_row
from transforms.context import VERSION
from transforms.elements import (
    ArchiveOutcome,
    ArchiveRef,
    ArchiveSummary,
    Failure,
    FragmentRef,
    PutOffArchive,
    RecordedArchive,
    Row,
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
    fragments: Check = anything,
) -> None:
    inputs = (summaries, outcomes, failures, prior, put_off)
    with make_pipeline() as pipeline:
        created = tuple(
            pipeline | str(number) >> beam.Create(elements)
            for number, elements in enumerate(inputs)
        )
        recorded = created | RecordArchives(*context)
        expect(archives=(recorded.archives, archives), fragments=(recorded.fragments, fragments))


def test_archives_are_recorded_with_the_failures_of_no_call(context: JobRun) -> None:
    bad, failure = _unread("/raw/bad")
    bad = replace(bad, ref=replace(bad.ref, is_known_failure=True))
    of_call = make_failure(archive_uri="/raw/a", call=CALL)

    def check(fragments: list[FragmentRef]) -> None:
        (fragment,) = fragments
        assert (fragment.call_date, set(fragment.replaced)) == (
            CALL_DATE,
            {("/raw/a",), ("/raw/bad",)},
        )
        assert dict(fragment.row_counts) == {"archives": 2, "failures": 1}
        rows = {row["archive_uri"]: row for row in read_fragment(fragment, "archives")}
        assert {uri: row["status"] for uri, row in rows.items()} == {
            "/raw/a": "ok",
            "/raw/bad": "failed",
        }
        assert {row["callpress_version"] for row in rows.values()} == {VERSION}
        assert rows["/raw/a"]["run_id"] == context.run_id
        assert rows["/raw/a"]["settings_fingerprint"] == context.settings_fingerprint
        (found,) = read_fragment(fragment, "failures")
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
        fragments=check,
    )


def test_archives_go_to_the_date_of_their_modification(context: JobRun) -> None:
    later = _summary("/raw/b")
    later = replace(later, ref=replace(later.ref, modified_unix_ns=CALL_START_UNIX_NS + DAY_NS))

    def check(fragments: list[FragmentRef]) -> None:
        assert sorted((fragment.call_date, fragment.replaced) for fragment in fragments) == [
            ("2026-01-05", (("/raw/a",),)),
            ("2026-01-06", (("/raw/b",),)),
        ]

    _run(context, [_summary(), later], outcomes=[_outcome(), _outcome("/raw/b")], fragments=check)


def test_archive_recorded_under_another_date_is_removed_there(context: JobRun) -> None:
    prior: list[dict[str, Any]] = [
        {"archive_uri": "/raw/a", "call_date": "2026-01-03"},
        {"archive_uri": "/raw/a", "call_date": CALL_DATE},
        {"archive_uri": "/raw/a", "call_session_id": None, "call_date": "2026-01-02"},
        {"archive_uri": "/raw/a", "call_session_id": "session-1", "call_date": "2026-01-01"},
    ]

    def check(fragments: list[FragmentRef]) -> None:
        removals = [fragment for fragment in fragments if not fragment.uri]
        assert sorted((fragment.call_date, fragment.replaced) for fragment in removals) == [
            ("2026-01-02", (("/raw/a",),)),
            ("2026-01-03", (("/raw/a",),)),
        ]
        assert {fragment.row_counts for fragment in removals} == {
            (("archives", 0), ("failures", 0))
        }
        assert len(fragments) == 3

    _run(context, [_summary()], outcomes=[_outcome()], prior=prior, fragments=check)


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

    def check(fragments: list[FragmentRef]) -> None:
        for fragment in fragments:
            for table, _ in fragment.row_counts:
                merge_partition(catalog_uri, table, fragment.call_date, [fragment])

    _run(
        context,
        [_summary(is_complete=False), _summary("/raw/b")],
        outcomes=[_outcome(), _outcome("/raw/b")],
        failures=[make_failure(archive_uri="/raw/a", message="new")],
        prior=[{"archive_uri": "/raw/a", "call_date": CALL_DATE}],
        fragments=check,
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

    def check(fragments: list[FragmentRef]) -> None:
        (fragment,) = fragments
        assert (fragment.call_date, fragment.replaced) == (CALL_DATE, (("/raw/x",),))
        assert [row["stage"] for row in read_fragment(fragment, "failures")] == ["ListArchives"]

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
        fragments=check,
    )


def _list_failure(call_date: str, archive_uri: str = "/raw/x/") -> Row:
    return {"archive_uri": archive_uri, "call_date": call_date, "stage": "ListArchives"}


def test_failure_of_what_cannot_be_listed_goes_from_its_former_date(context: JobRun) -> None:
    failure = make_failure(
        stage=Stage.LIST_ARCHIVES,
        archive_uri="/raw/x/",
        archive_modified_unix_ns=CALL_START_UNIX_NS,
    )

    def check(fragments: list[FragmentRef]) -> None:
        found = {fragment.call_date: fragment for fragment in fragments}
        assert found["2026-01-03"].row_counts == (("failures", 0),)
        assert found["2026-01-03"].replaced == (("/raw/x/",),)
        assert found[CALL_DATE].count("failures") == 1
        assert len(fragments) == 2

    prior = [_list_failure("2026-01-03"), _list_failure(CALL_DATE)]
    _run(context, [], failures=[failure], prior=prior, archives=anything, fragments=check)


def test_failure_of_a_folder_goes_when_it_can_be_listed_again(context: JobRun) -> None:
    def check(fragments: list[FragmentRef]) -> None:
        (removal,) = fragments
        assert (removal.uri, removal.call_date) == ("", CALL_DATE)
        assert (removal.row_counts, removal.replaced) == ((("failures", 0),), (("/raw/x/",),))

    _run(context, [], prior=[_list_failure(CALL_DATE)], archives=nothing, fragments=check)


def test_rows_of_an_unpacked_folder_stay_when_an_archive_in_it_is_pressed(
    context: JobRun,
) -> None:
    prior = [
        {"archive_uri": "/raw/x/", "call_date": CALL_DATE},
        {"archive_uri": "/raw/x/", "call_date": CALL_DATE, "stage": "UnpackArchives"},
    ]

    _run(context, [], prior=prior, archives=nothing, fragments=nothing)


def test_recalled_archive_keeps_its_row(context: JobRun) -> None:
    _run(
        context,
        [],
        outcomes=[_outcome("/raw/earlier")],
        prior=[{"archive_uri": "/raw/earlier", "call_date": "2026-01-03"}],
        archives=nothing,
        fragments=nothing,
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
    row = {"archive_uri": "/raw/a", "status": "partial", "fingerprint": "7-1", "attempts": 2}
    write_rows(context, "archives", [stamp({**row, "error_type": "ArchiveError"})])
    (before,) = read_catalog(context, "archives")
    catalog_uri = context.catalog_uri

    def check(fragments: list[FragmentRef]) -> None:
        for fragment in fragments:
            for table, _ in fragment.row_counts:
                merge_partition(catalog_uri, table, fragment.call_date, [fragment])

    keys = [{"archive_uri": "/raw/a", "call_date": CALL_DATE, **failure} for failure in failures]
    _run(
        context,
        [],
        outcomes=[outcome],
        prior=[{"archive_uri": "/raw/a", "call_date": CALL_DATE}, *keys],
        archives=nothing,
        fragments=check,
    )
    (after,) = read_catalog(context, "archives")
    error_type = None if status == "ok" else "ArchiveError"
    assert after == {**before, "status": status, "error_type": error_type}


def test_many_archives_make_fragments_of_bounded_size(context: JobRun) -> None:
    count = 1_100

    def check(fragments: list[FragmentRef]) -> None:
        sizes = [dict(fragment.row_counts)["archives"] for fragment in fragments]
        assert sum(sizes) == count
        assert max(sizes) <= 500
        assert len({fragment.uri for fragment in fragments}) == len(fragments)

    _run(context, [_summary(f"/raw/{number}") for number in range(count)], fragments=check)


@pytest.mark.slow
def test_retried_bundle_writes_the_same_fragment(context: JobRun) -> None:
    seen: list[tuple[str, bytes]] = []
    for _ in range(2):
        _run(context, [_summary(), _summary("/raw/b")], outcomes=[_outcome()], fragments=anything)
        names = list_files(context.staged("rows"))
        with open(context.staged("rows", names[0]), "rb") as file:
            seen.append((names[0], file.read()))
        assert len(names) == 1

    assert seen[0] == seen[1]
