"""SkipProcessed and FindPriorRows: what the catalog has already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.support.beam import (
    CALL_COLUMNS,
    Check,
    GroupOnce,
    anything,
    archive_row_of,
    call_row,
    count_of,
    expect,
    make_pipeline,
    nothing,
    stamp,
    write_archive_row,
    write_rows,
)
from tests.support.fixtures import STARTED_UNIX_NS
from tests.support.job_run import JobRun
from transforms.catalog.merging import merge_partition
from transforms.catalog.repressing import tell, weigh
from transforms.composites.find_prior_rows import FindPriorRows
from transforms.context import VERSION, is_older
from transforms.elements import ArchiveRef
from transforms.media.settings import LimitSettings, PressSettings
from transforms.media.values import CallKey
from transforms.media.wall_time import to_time
from transforms.skip_processed import SkipProcessed
from transforms.sources.manifests.entry import ManifestEntry

DAY_NS = 86_400 * 10**9
DAY_1_NS = 1_767_607_200 * 10**9


def _ref(name: str, fingerprint: str = "3-1", modified_unix_ns: int = DAY_1_NS) -> ArchiveRef:
    return ArchiveRef(
        uri=f"/raw/{name}", size_bytes=3, modified_unix_ns=modified_unix_ns, fingerprint=fingerprint
    )


TODAY = {"processed_at": to_time(STARTED_UNIX_NS - 3_600 * 10**9)}


def _is_known(fields: dict[str, Any]) -> bool:
    """Whether a row says that this version failed at the archive as it is."""
    return (
        fields["status"] in ("failed", "partial")
        and fields.get("callpress_version", VERSION) == VERSION
        and fields.get("fingerprint", "3-1") == "3-1"
    )


def _expect(
    context: JobRun,
    refs: Sequence[ArchiveRef],
    todo: Sequence[ArchiveRef],
    skipped: Sequence[ArchiveRef],
    repressing: Check = anything,
) -> None:
    pipeline = make_pipeline()
    compared = pipeline | beam.Create(refs) | SkipProcessed(*context)
    expect(
        todo=(compared.todo, equal_to(todo)),
        skipped=(
            compared.skipped | beam.FlatMap(lambda uris: uris),
            equal_to([ref.uri for ref in skipped]),
        ),
        repressing=(compared.repressing, repressing),
    )
    result = pipeline.run()
    result.wait_until_finish()
    assert count_of(result, "archives_skipped") == len(skipped)


def test_empty_catalog_skips_nothing(context: JobRun) -> None:
    refs = [_ref("a"), _ref("b", modified_unix_ns=DAY_1_NS + DAY_NS)]

    _expect(context, refs, refs, [])


def test_archives_that_went_well_are_skipped_on_every_date(context: JobRun) -> None:
    done = [_ref("a"), _ref("b", modified_unix_ns=DAY_1_NS + DAY_NS)]
    new = [_ref("c"), _ref("d", modified_unix_ns=DAY_1_NS + DAY_NS)]
    for ref in done:
        write_archive_row(context, ref)

    _expect(context, [*done, *new], new, done)


def test_row_of_the_catalog_decides(context: JobRun) -> None:
    cases: list[
        tuple[dict[str, Any], int | None]
    ] = [  # None for an archive that is left out, else which try at it this is
        ({"status": "ok"}, None),
        ({"status": "empty"}, None),
        ({"status": "partial", "error_type": "ArchiveError"}, None),
        ({"status": "partial", "error_type": "StorageError"}, 2),
        ({"status": "partial", "error_type": "CodecProcessError", "attempts": 2}, 3),
        ({"status": "partial", "error_type": "StorageError", "attempts": 3}, None),
        ({"status": "failed", "error_type": "ArchiveError"}, 2),
        ({"status": "failed", "error_type": "StorageError", "attempts": 2}, 3),
        ({"status": "failed", "error_type": "ArchiveError", "attempts": 3}, None),
        ({"status": "failed", "error_type": "ArchiveError", "attempts": None}, 2),
        ({"status": "ok", "fingerprint": "4-1"}, 1),
        ({"status": "failed", "fingerprint": "4-1", "attempts": 3}, 1),
        ({"status": "ok", "settings_fingerprint": "other"}, 1),
        ({"status": "failed", "settings_fingerprint": "other", "attempts": 3}, 1),
        # What an older version left is tried once more, a day's runs are one try.
        ({"status": "ok", "callpress_version": None}, None),
        ({"status": "empty", "callpress_version": "0.0.9"}, None),
        ({"status": "partial", "error_type": "ArchiveError", "callpress_version": None}, 2),
        ({"status": "partial", "error_type": "RtpError", "callpress_version": "0.0.9"}, 2),
        ({"status": "failed", "attempts": 3, "callpress_version": None}, 4),
        ({"status": "failed", "attempts": 3, "callpress_version": "0.0.9", **TODAY}, 3),
        ({"status": "failed", "attempts": 4}, None),
        ({"status": "failed", "attempts": 4, **TODAY}, None),
        ({"status": "failed", "attempts": 3, "callpress_version": "99.0"}, None),
        ({"status": "partial", "error_type": "RtpError", "callpress_version": "99.0"}, None),
        ({"status": "failed", "attempts": 1, **TODAY}, 1),
        ({"status": "failed", "attempts": 3, **TODAY}, 3),
        ({"status": "partial", "error_type": "RtpError", **TODAY}, None),
    ]
    refs = [_ref("-".join(map(str, fields.values()))) for fields, _ in cases]
    for ref, (fields, _) in zip(refs, cases, strict=True):
        write_archive_row(context, ref, **fields)
    tries = list(zip(refs, [attempt for _, attempt in cases], strict=True))

    _expect(
        context,
        refs,
        [
            replace(ref, attempt=attempt, is_known_failure=_is_known(fields))
            for (ref, attempt), (fields, _) in zip(tries, cases, strict=True)
            if attempt is not None
        ],
        [ref for ref, attempt in tries if attempt is None],
    )


def test_what_waits_is_pressed_first_of_all_whatever_the_settings(context: JobRun) -> None:
    waits = {"status": "waiting", "attempts": 0}
    as_it_was, other, changed = _ref("as-it-was"), _ref("other"), _ref("changed")
    write_archive_row(context, as_it_was, **waits)
    write_archive_row(context, other, **waits, settings_fingerprint="other")
    write_archive_row(context, changed, **waits, fingerprint="4-1")
    refs = [as_it_was, other, changed]

    _expect(context, refs, [replace(ref, is_waiting=True) for ref in refs], [], nothing)


def test_limit_of_attempts_is_a_setting(context: JobRun) -> None:
    ref = _ref("a")
    write_archive_row(context, ref, status="failed", error_type="ArchiveError", attempts=1)
    once = context.changed(settings=PressSettings(limits=LimitSettings(max_attempts=1)))

    _expect(once, [ref], [], [ref])


def test_overwrite_skips_nothing(context: JobRun) -> None:
    ref = _ref("a")
    write_archive_row(context, ref)

    _expect(context.changed(overwrite=True), [ref], [ref], [])


def test_what_is_pressed_anew_and_went_well_before_is_news_when_it_fails(context: JobRun) -> None:
    good, bad = _ref("good"), _ref("bad")
    write_archive_row(context, good)
    write_archive_row(context, bad, status="failed", attempts=3)
    again = [good, replace(bad, is_known_failure=True)]

    _expect(context.changed(overwrite=True), [good, bad], again, [])
    repeat = frozenset({good.uri, bad.uri})
    _expect(context.changed(repeat_archives=repeat), [good, bad], again, [])


@pytest.mark.parametrize(
    ("version", "older"),
    [
        (None, True), ("", True), ("0.9.9", True), ("1.1", True), ("1.2.0rc1", True),
        ("1.2.0.dev3", True), ("1.2.0", False), ("1.2.1", False), ("1.10.0", False),
        ("2.0.0rc1", False), ("2", False),
    ],
)  # fmt: skip
def test_older_version_is_told_from_a_newer_one(
    version: str | None, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.context.VERSION", "1.2.0")
    assert is_older(version) == older


# --- pressing much anew ---------------------------------------------------------------------------


def _fill(context: JobRun, count: int, odd: dict[int, dict[str, Any]]) -> list[ArchiveRef]:
    """Fills a catalog over two dates with archives that went well, but for the odd ones."""
    refs = [_ref(f"{n:03d}", modified_unix_ns=DAY_1_NS + n % 2 * DAY_NS) for n in range(count)]
    for day in (0, 1):
        rows = [
            archive_row_of(ref, context, **odd.get(n, {}))
            for n, ref in enumerate(refs)
            if n % 2 == day
        ]
        write_rows(context, "archives", rows, f"2026-01-0{5 + day}")
    return refs


OTHER = {"settings_fingerprint": "other"}
LEFT_BY_OLDER = {"status": "partial", "error_type": "RtpError", "callpress_version": None}


@pytest.mark.parametrize(
    ("count", "odd", "changes", "is_refused"),
    [
        (200, dict.fromkeys(range(11), OTHER), {}, True),
        (200, dict.fromkeys(range(10), OTHER), {}, False),
        (199, dict.fromkeys(range(199), OTHER), {}, False),
        (200, dict.fromkeys(range(11), OTHER), {"repress": True}, False),
        (200, dict.fromkeys(range(11), LEFT_BY_OLDER), {}, True),
        (
            200,
            {**dict.fromkeys(range(6), OTHER), **dict.fromkeys(range(6, 11), LEFT_BY_OLDER)},
            {},
            True,
        ),
    ],
    ids=["11 of 200", "10 of 200", "all of 199", "asked for", "newer version", "both"],
)
def test_more_than_a_twentieth_of_a_catalog_is_pressed_anew_only_when_asked_for(
    context: JobRun,
    count: int,
    odd: dict[int, dict[str, Any]],
    changes: dict[str, Any],
    is_refused: bool,
) -> None:
    refs = _fill(context, count, odd)
    new = [_ref("new"), replace(refs[-1], fingerprint="changed")]
    old = [
        replace(ref, attempt=2) if odd[n] is LEFT_BY_OLDER else ref
        for n, ref in enumerate(refs)
        if n in odd
    ]
    done = [ref for n, ref in enumerate(refs[:-1]) if n not in odd]

    def check(elements: list[Any]) -> None:
        (found,) = elements
        assert (found.archives, found.size_bytes) == (len(odd), 3 * len(odd))
        assert found.is_refused == is_refused
        assert found.catalog_archives == (count if is_refused else None)

    refs[-1] = new[1]
    if count == 199:  # that one is among the odd ones
        odd, old = dict.fromkeys(range(198), OTHER), old[:-1]
    _expect(
        context.changed(**changes),
        [*refs, new[0]],
        new if is_refused else [*new, *old],
        [*done, *old] if is_refused else done,
        check,
    )


def test_what_is_due_for_another_try_needs_no_leave_of_a_newer_version(context: JobRun) -> None:
    due = {"status": "failed", "error_type": "StorageError", "callpress_version": None}
    refs = _fill(context, 200, dict.fromkeys(range(50), due))

    _expect(context, refs, [replace(ref, attempt=2) for ref in refs[:50]], refs[50:], nothing)


def test_overwriting_asks_for_all_of_it(context: JobRun) -> None:
    refs = _fill(context, 200, dict.fromkeys(range(200), OTHER))

    _expect(context.changed(overwrite=True), refs, refs, [], nothing)


def test_cost_of_pressing_anew_is_that_of_earlier_runs_by_size(context: JobRun) -> None:
    _fill(context, 200, {})
    times = {"started_at": to_time(STARTED_UNIX_NS)}
    for night in range(40):
        figures = {"cpu_ms": 10**9, "bytes_read": 1} if night < 10 else {}
        if night in (20, 30):
            figures = {"cpu_ms": 1_000 * night, "bytes_read": 10}
        row = {**stamp({**times, **figures}), "run_id": f"run-{night}"}
        write_rows(context, "runs", [row], (date(2026, 1, 1) + timedelta(days=night)).isoformat())

    found = weigh(context.catalog_uri, 50, 720_000, is_wanted=False)

    assert found.cpu_seconds == 720_000 * 50 / 20
    assert tell(found) == (
        "50 of the 200 archives of the catalog would be pressed anew, for other settings or as an "
        "older version's, about 500 CPU hours: they are left as they are; --repress presses them"
    )


def test_cost_that_no_run_tells_is_said_to_be_unknown(context: JobRun) -> None:
    _fill(context, 200, {})

    found = weigh(context.catalog_uri, 50, 720_000, is_wanted=False)

    assert found.cpu_seconds is None
    assert "at a cost that no earlier run tells" in tell(found)


def test_archive_of_the_same_name_elsewhere_is_another(context: JobRun) -> None:
    write_archive_row(context, _ref("a"))
    other = replace(_ref("a"), uri="/elsewhere/a")

    _expect(context, [other], [other], [])


def test_changed_archive_keeps_nothing_of_the_row_under_its_old_date(context: JobRun) -> None:
    write_archive_row(context, _ref("a"))
    touched = _ref("a", fingerprint="3-2", modified_unix_ns=DAY_1_NS + DAY_NS)

    _expect(context, [touched], [touched], [])


def test_catalog_that_cannot_be_read_fails_the_run(context: JobRun) -> None:
    write_archive_row(context, _ref("a"))
    (path,) = Path(context.catalog_uri).glob("archives/*/*.parquet")
    path.write_bytes(b"no parquet")

    with pytest.raises(Exception, match=r"(?i)parquet"), make_pipeline() as pipeline:
        pipeline | beam.Create([_ref("a")]) | SkipProcessed(*context)


# --- FindPriorRows --------------------------------------------------------------------------------


def _call(number: int) -> CallKey:
    return CallKey(call_type="default", call_id="standup", call_session_id=f"session-{number}")


def _find(context: JobRun, numbers: Sequence[int], expected: Sequence[Any]) -> None:
    with make_pipeline() as pipeline:
        keys = pipeline | beam.Create([_call(number).as_tuple() for number in numbers])
        columns = {
            "calls": (*CALL_COLUMNS, "status", "timeline_start_time"),
            "tracks": CALL_COLUMNS,
        }
        rows = keys | FindPriorRows(context.job, columns, CALL_COLUMNS)
        assert_that(rows["tracks"], equal_to([]), label="tracks")
        found = (
            rows["calls"]
            | GroupOnce()
            | beam.Map(lambda row: (row["call_session_id"], row["status"], row["call_date"]))
        )
        assert_that(found, equal_to(expected))


def test_prior_rows_are_found_under_any_date_and_in_any_shard(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1))], "2026-01-04")
    write_rows(
        context, "calls", [call_row(_call(2), status="partial"), call_row(_call(3))], "2026-01-05"
    )
    merge_partition(context.catalog_uri, "calls", "2026-01-05", [], 1)

    _find(
        context,
        [1, 2, 9],
        [("session-1", "ok", "2026-01-04"), ("session-2", "partial", "2026-01-05")],
    )


def test_no_keys_find_no_rows(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1))])

    _find(context, [], [])


def test_empty_catalog_has_no_prior_rows(context: JobRun) -> None:
    _find(context, [1], [])


def test_prior_rows_hold_the_asked_columns_with_their_types(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1), archive_uris=["/raw/a", "/raw/b"])])
    columns = (*CALL_COLUMNS, "timeline_start_time", "archive_uris")

    with make_pipeline() as pipeline:
        rows = (
            pipeline
            | beam.Create([_call(1).as_tuple()])
            | FindPriorRows(context.job, {"calls": columns}, CALL_COLUMNS)
        )
        expected = {
            "call_type": "default",
            "call_id": "standup",
            "call_session_id": "session-1",
            "timeline_start_time": to_time(DAY_1_NS),
            "archive_uris": ["/raw/a", "/raw/b"],
            "call_date": "2026-01-05",
        }
        assert_that(rows["calls"] | GroupOnce(), equal_to([expected]))


def test_key_columns_need_not_be_all_of_a_key(context: JobRun) -> None:
    write_archive_row(context, _ref("a"))
    write_archive_row(context, _ref("b"))

    with make_pipeline() as pipeline:
        keys = pipeline | beam.Create([("/raw/b",)])
        rows = keys | FindPriorRows(context.job, {"archives": ("archive_uri",)}, ("archive_uri",))
        assert_that(
            rows["archives"], equal_to([{"archive_uri": "/raw/b", "call_date": "2026-01-05"}])
        )


# --- what manifests name --------------------------------------------------------------------------


def _entry(name: str, **fields: Any) -> ManifestEntry:
    return ManifestEntry(uri=f"/raw/{name}", link=f"https://files.test/{name}?sig", **fields)


def _expect_named(
    context: JobRun,
    entries: Sequence[ManifestEntry],
    todo: Check,
    skipped: Sequence[str] = (),
    listed: Sequence[ArchiveRef] = (),
    named: int | None = None,
) -> None:
    with make_pipeline() as pipeline:
        compared = (
            pipeline | "Listed" >> beam.Create(listed),
            pipeline | "Entries" >> beam.Create(entries) | GroupOnce(),
        ) | SkipProcessed(*context)
        assert compared.named is not None
        expect(
            todo=(compared.todo, todo),
            skipped=(
                compared.skipped | beam.FlatMap(lambda uris: uris),
                equal_to([f"/raw/{name}" for name in skipped]),
            ),
            named=(compared.named, equal_to([1] * (len(entries) if named is None else named))),
        )


def test_named_archive_is_taken_for_what_the_catalog_has_whatever_the_date(
    context: JobRun,
) -> None:
    write_archive_row(context, _ref("done"))
    write_archive_row(context, _ref("other", modified_unix_ns=DAY_1_NS + DAY_NS), status="empty")
    write_archive_row(context, _ref("waits"), status="waiting", attempts=0)
    copied_fields = {"copy_uri": "/copies/1", "modified_time": to_time(DAY_1_NS)}
    write_archive_row(context, _ref("copied"), status="failed", **copied_fields)
    names = ("done", "other", "waits", "copied", "new")

    def check(found: list[ArchiveRef]) -> None:
        refs = {ref.uri.removeprefix("/raw/"): ref for ref in found}
        assert set(refs) == {"waits", "copied", "new"}
        assert all(ref.is_unseen and ref.link for ref in found)
        assert refs["waits"].is_waiting
        copied = refs["copied"]
        assert (copied.copy_uri, copied.fingerprint, copied.size_bytes) == ("/copies/1", "3-1", 3)
        assert (copied.is_known_failure, copied.modified_unix_ns) == (True, DAY_1_NS)
        assert (refs["new"].fingerprint, refs["new"].modified_unix_ns) == ("", STARTED_UNIX_NS)

    _expect_named(context, [_entry(name) for name in names], check, skipped=["done", "other"])


def test_expired_link_is_tried_again_however_often_it_was(context: JobRun) -> None:
    for name, error in (("expired", "LinkExpiredError"), ("damaged", "ArchiveError")):
        fields = {"status": "failed", "error_type": error, "attempts": 99, **TODAY}
        write_archive_row(context, _ref(name, fingerprint=""), **fields)

    _expect_named(
        context,
        [_entry("expired"), _entry("damaged")],
        lambda found: equal_to([("/raw/expired", 99)])([(r.uri, r.attempt) for r in found]),
        skipped=["damaged"],
    )


def test_archive_that_a_pattern_matches_too_is_the_patterns(context: JobRun) -> None:
    _expect_named(
        context,
        [_entry("a"), _entry("b")],
        lambda found: equal_to([("/raw/a", ""), ("/raw/b", "https://files.test/b?sig")])(
            [(ref.uri, ref.link) for ref in found]
        ),
        listed=[_ref("a")],
        named=1,
    )


def test_what_ended_before_the_run_is_about_is_left_unless_it_waits(context: JobRun) -> None:
    context = context.changed(since_unix_ns=DAY_1_NS)
    write_archive_row(context, _ref("waits"), status="waiting", attempts=0)
    entries = [
        _entry("old", ended_unix_ns=DAY_1_NS),
        _entry("new", ended_unix_ns=DAY_1_NS + 1),
        _entry("undated"),
        _entry("waits", ended_unix_ns=DAY_1_NS - 1),
    ]

    _expect_named(
        context,
        entries,
        lambda found: equal_to([("/raw/new", True), ("/raw/undated", False), ("/raw/waits", True)])(
            [(ref.uri, ref.is_dated) for ref in found]
        ),
        named=3,
    )


def test_named_and_listed_archives_are_weighed_together(context: JobRun) -> None:
    names = ("a", "b", *(f"{number}" for number in range(198)))
    rows = [archive_row_of(_ref(name), context, settings_fingerprint="other") for name in names]
    write_rows(context, "archives", rows, "2026-01-05")
    context = context.changed(repress=False)
    entries = [_entry(f"{number}") for number in range(19)]

    _expect_named(
        context,
        entries,
        nothing,
        skipped=["a", "b", *(f"{number}" for number in range(19))],
        listed=[_ref("a"), _ref("b")],
    )
