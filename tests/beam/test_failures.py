"""Failures: the one shape of every dead letter, and its rows."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.support.beam import CALL, GroupOnce, make_failure, make_pipeline, make_track
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.schema import KEYS, SCHEMAS, to_table
from transforms.elements import Stage, is_about_any, to_failure, wants_failure, worst_failure
from transforms.filters import Filters
from transforms.media.errors import ArchiveError, StorageError
from transforms.media.values import OutputType
from transforms.media.wall_time import to_time

NOW_NS = 1_767_751_200_000_000_000


def test_to_failure_takes_everything_the_error_knows() -> None:
    error = ArchiveError("a.rtpdump: empty, expected an rtpdump", member="a.rtpdump", byte_offset=0)

    failure = to_failure(
        Stage.UNPACK_ARCHIVES, error, archive_uri="/raw/a.tar.gz", call=CALL, attempt=2
    )

    assert (failure.stage, failure.error_type, failure.message) == (
        "UnpackArchives",
        "ArchiveError",
        "a.rtpdump: empty, expected an rtpdump",
    )
    assert (failure.member, failure.byte_offset, failure.archive_uri) == (
        "a.rtpdump",
        0,
        "/raw/a.tar.gz",
    )
    assert (failure.call, failure.attempt, failure.retryable) == (CALL, 2, False)


def test_to_failure_of_a_storage_error_is_retryable() -> None:
    assert to_failure(Stage.EXTRACT_TRACKS, StorageError("gs://b/x: timed out")).retryable


def test_failure_row_names_call_track_and_time() -> None:
    failure = make_failure(
        call=CALL,
        archive_uri="/raw/a.tar.gz",
        participant_id="alice",
        user_session_id="sess-alice",
        output_type=OutputType.AUDIO_ONLY,
        attempt=3,
    )

    (row,) = failure_rows([failure], NOW_NS)

    assert set(row) == set(SCHEMAS["failures"].names) - {
        "run_id",
        "created_at",
        "settings_fingerprint",
    }
    assert (row["call_cid"], row["call_session_id"]) == ("default:standup", "session-1")
    assert (row["participant_id"], row["user_session_id"], row["output_type"]) == (
        "alice",
        "sess-alice",
        "audio_only",
    )
    assert (row["attempt"], row["failed_at"]) == (3, to_time(NOW_NS))


def test_failure_row_without_call_has_null_ids() -> None:
    (row,) = failure_rows([make_failure()], NOW_NS)

    assert [row[name] for name in ("call_cid", "call_type", "call_id", "call_session_id")] == [
        None
    ] * 4
    assert to_table("failures", [row]).num_rows == 1


def test_failures_of_one_key_become_one_row_with_all_messages() -> None:
    failures = [
        make_failure(message="one"),
        make_failure(message="two"),
        make_failure(message="two"),
    ]

    rows = failure_rows(failures, NOW_NS)

    assert [row["message"] for row in rows] == ["one; two"]


def test_failures_that_differ_in_one_key_column_stay_apart() -> None:
    changes = {
        "stage": "MixCalls",
        "archive_uri": "/raw/b.tar.gz",
        "member": "b.rtpdump",
        "byte_offset": 7,
        "call": CALL,
        "participant_id": "bob",
        "user_session_id": "sess-bob",
        "output_type": OutputType.AUDIO_ONLY,
        "error_type": "RtpdumpError",
    }

    rows = failure_rows(
        [make_failure(), *(make_failure(**{name: value}) for name, value in changes.items())],
        NOW_NS,
    )

    assert len(rows) == 1 + len(changes)
    assert len({tuple(row[column] for column in KEYS["failures"]) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (Filters(), True),
        (Filters(calls=("default:standup",)), True),
        (Filters(calls=("default:retro",)), False),
        (Filters(participants=("alice", "bob")), True),
        (Filters(participants=("bob",)), False),
        (Filters(user_sessions=("sess-alice",)), True),
        (Filters(user_sessions=("sess-bob",)), False),
        (Filters(output_types=(OutputType.AUDIO_ONLY,)), True),
        (Filters(output_types=(OutputType.SCREENSHARE_AUDIO_ONLY,)), False),
        (Filters(participants=("alice",), user_sessions=("sess-bob",)), False),
        (Filters(excluded_calls=("default:st*",)), False),
        (Filters(excluded_participants=("bob",)), True),
        (Filters(excluded_participants=("bob", "alice")), False),
        (Filters(track_ids=("t",)), True),
    ],
)
def test_filters_want_the_failures_of_what_they_are_about(filters: Filters, wanted: bool) -> None:
    failure = make_failure(
        call=CALL,
        participant_id="alice",
        user_session_id="sess-alice",
        output_type=OutputType.AUDIO_ONLY,
    )

    assert wants_failure(failure, filters) is wanted


def test_filters_want_failures_of_a_whole_archive_and_of_their_whole_call() -> None:
    filters = Filters(
        calls=("default:standup",), participants=("bob",), output_types=(OutputType.AUDIO_ONLY,)
    )

    assert wants_failure(make_failure(), filters)
    assert wants_failure(make_failure(call=CALL), filters)


@pytest.mark.parametrize(
    ("owner", "is_about"),
    [
        ({}, True),
        ({"participant_id": "alice"}, True),
        ({"participant_id": "alice", "user_session_id": "sess-alice"}, True),
        ({"participant_id": "alice", "user_session_id": "other"}, False),
        ({"participant_id": "alice", "output_type": OutputType.AUDIO_ONLY}, True),
        ({"participant_id": "alice", "output_type": OutputType.SCREENSHARE_AUDIO_ONLY}, False),
        ({"participant_id": "eve"}, False),
    ],
)
def test_failure_is_about_tracks_by_all_names_that_it_has(
    owner: dict[str, Any], is_about: bool
) -> None:
    failure = make_failure(call=CALL, **owner)

    assert is_about_any(failure, [make_track("bob"), make_track("alice")]) is is_about
    assert is_about_any(failure, []) is (not owner)


def test_worst_failure_is_one_that_another_try_may_heal() -> None:
    first, second = make_failure(message="first"), make_failure(message="second")
    passing = make_failure(message="passing", retryable=True)

    assert worst_failure([None, first, second]) == first
    assert worst_failure([first, None, passing]) == passing
    assert worst_failure([None]) is None


def test_failure_goes_through_a_shuffle_unchanged() -> None:
    failures = [
        make_failure(),
        make_failure(
            call=CALL,
            output_type=OutputType.SCREENSHARE_AUDIO_ONLY,
            byte_offset=1 << 40,
            retryable=True,
        ),
    ]
    with make_pipeline() as pipeline:
        grouped = pipeline | beam.Create(failures) | GroupOnce()
        assert_that(grouped, equal_to(failures))
