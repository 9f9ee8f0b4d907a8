"""MatchFilters: what was asked for by name and is nowhere."""

from __future__ import annotations

from collections.abc import Sequence

import apache_beam as beam
import pytest

from tests.support.beam import CALL, call_row, expect, make_pipeline, track_row, write_rows
from tests.support.job_run import JobRun
from transforms.elements import ArchiveRef, ArchiveSummary
from transforms.filters import Filters
from transforms.match_filters import MatchFilters, Unmatched
from transforms.media.values import CallKey

REF = ArchiveRef(uri="/raw/a.tar.gz", size_bytes=1, modified_unix_ns=0, fingerprint="1")


def _summary() -> ArchiveSummary:
    return ArchiveSummary(
        ref=REF, is_complete=True, member_count=1, track_count=1, calls=(CALL,), could_read=True,
        bytes_read=1, cpu_ns=1, first_failure=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "read", "skipped", "missing"),
    [
        (Filters(calls=("default:nope",)), [], [], []),
        (Filters(calls=("default:nope",)), [_summary()], [], [("default:nope", [CALL.cid])]),
        (Filters(calls=("default:standup",)), [], [REF], []),
        (Filters(calls=("default:other",)), [], [REF], [("default:other", [CALL.cid])]),
        (Filters(participants=("alice", "eve")), [], [REF], [("eve", ["alice", "silent"])]),
        (Filters(participants=("silent",)), [], [REF], []),
        (Filters(participants=("elsewhere",)), [], [REF], [("elsewhere", ["alice", "silent"])]),
        (Filters(participants=("a", "b", "c", "d")), [], [REF], [(n, []) for n in "abcd"]),
        (Filters(calls=("default:*up", "[d]efault:?tandup")), [], [REF], []),
        (Filters(calls=("default:*up",)), [_summary()], [], []),
        (Filters(calls=("support:*",)), [_summary()], [REF], [("support:*", [CALL.cid])]),
        (
            Filters(excluded_calls=(CALL.cid, "*:other")),
            [_summary()],
            [],
            [("*:other", [CALL.cid])],
        ),
        (Filters(excluded_calls=(CALL.cid, "*:other")), [], [REF], [("*:other", [CALL.cid])]),
        (
            Filters(excluded_participants=("alice", "eve")),
            [],
            [REF],
            [("eve", ["alice", "silent"])],
        ),
        (Filters(track_ids=("t2", "t3")), [], [REF], [("t3", ["t1", "t2"])]),
        (Filters(track_ids=("far",)), [], [REF], [("far", ["t1", "t2"])]),
        (Filters(track_ids=("t1",), participants=("silent",)), [], [REF], [("t1", [])]),
    ],
    ids=[
        "no archives at all",
        "not in what was read",
        "in what was skipped",
        "in another archive of the catalog",
        "one of two",
        "nothing was made of it",
        "a person of another archive",
        "many names",
        "by a glob in what was skipped",
        "by a glob in what was read",
        "by no glob",
        "left out of what was read",
        "left out of what was skipped",
        "person that is left out",
        "one of two published tracks",
        "published track of another archive",
        "published track of somebody else",
    ],
)
def test_named_values_are_looked_for_in_what_was_read_and_in_what_was_skipped(
    context: JobRun,
    filters: Filters,
    read: Sequence[ArchiveSummary],
    skipped: Sequence[ArchiveRef],
    missing: list[tuple[str, list[str]]],
) -> None:
    far = ["/raw/elsewhere.tar.gz"]
    other = CallKey(call_type="default", call_id="other", call_session_id="s")
    calls = [call_row(CALL, archive_uris=[REF.uri]), call_row(other, archive_uris=far)]
    write_rows(context, "calls", calls)
    tracks = [
        track_row("alice", track_ids=["t1", "t2"]),
        track_row("silent", archive_uris=None, status="empty"),
        track_row("elsewhere", other, archive_uris=far, track_ids=["far"]),
    ]
    write_rows(context, "tracks", tracks)
    _look_for(context, filters, read, skipped, missing)


def _look_for(
    context: JobRun,
    filters: Filters,
    read: Sequence[ArchiveSummary],
    skipped: Sequence[ArchiveRef],
    missing: list[tuple[str, list[str]]],
    unwanted: Sequence[str] | None = None,
) -> None:
    job = context.changed(filters=filters).job

    def check(found: list[Unmatched]) -> None:
        told = sorted((each.value, sorted(each.nearest)) for each in found)
        assert told == sorted(missing)

    with make_pipeline() as pipeline:
        inputs = (
            pipeline | "parts" >> beam.Create([]),
            pipeline | "read" >> beam.Create(read),
            pipeline | "skipped" >> beam.Create([tuple(ref.uri for ref in skipped)]),
            *(() if unwanted is None else (pipeline | "unwanted" >> beam.Create(unwanted),)),
        )
        expect(unmatched=(inputs | MatchFilters(job), check))


@pytest.mark.parametrize(
    ("filters", "missing"),
    [
        (Filters(calls=("default:nope",)), [("default:nope", ["default:one", "default:two"])]),
        (Filters(excluded_calls=("default:one", "*:x")), [("*:x", ["default:one", "default:two"])]),
    ],
)
def test_calls_that_a_manifest_names_and_nobody_wants_are_there(
    context: JobRun, filters: Filters, missing: list[tuple[str, list[str]]]
) -> None:
    """None of their archives was looked at."""
    _look_for(context, filters, [], [], missing, unwanted=["default:one", "default:two"])
