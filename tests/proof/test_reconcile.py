"""Reconcile: each recording of a listing is what it is, and nothing else is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import ROOT
from tests.support.listings import (
    DAY_NS,
    HOUR_NS,
    NOW_NS,
    TERMS,
    MadeUpRows,
    listing_in,
    make_world,
    recording_of_vendor,
    row_of,
    write_archives,
)
from transforms.catalog.schema import SCHEMAS
from transforms.elements import Row
from transforms.filters import Filters
from transforms.media.errors import StorageError
from transforms.proof.at_end import is_told, reconcile_at_end
from transforms.proof.listing import ListedRecording
from transforms.proof.reconcile import Reconciled, State, reconcile, reconcile_rows

TRIALS = 500
ON_DISK = 10


def test_random_nights_name_exactly_what_was_withheld_or_broken(tmp_path: Path) -> None:
    seen = set()
    for seed in range(TRIALS):
        world, catalog = make_world(seed), tmp_path / str(seed)
        listing = listing_in(tmp_path / "listing.json", world.recordings)
        if seed < ON_DISK:
            write_archives(catalog, world.rows, world.bits)
            reconciled = reconcile(listing, str(catalog), TERMS)
        else:
            rows = MadeUpRows(row for _, row in world.rows)
            reconciled = reconcile_rows(listing, rows, TERMS)

        found = {each.uri: (each.state, each.is_missing, each.matched_by) for each in reconciled}

        assert found == world.truth, f"world {seed}"
        assert listing.repeated == len(world.recordings) - len(world.truth)
        seen |= set(found.values())
    assert len(seen) == 11


URI, SESSION = "https://vendor.test/raw/a.tar.gz", "session-a"


def _one(
    tmp_path: Path,
    *rows: Row,
    uri: str = URI,
    age_ns: int | None = DAY_NS,
    is_expired: bool = False,
    session: str = SESSION,
) -> Reconciled:
    """Returns what became of one recording that ended so long ago, by some rows."""
    ended = None if age_ns is None else NOW_NS - age_ns
    recording = recording_of_vendor(uri, session, ended, is_expired=is_expired)
    listing = listing_in(tmp_path / "listing.json", [recording])
    (found,) = reconcile_rows(listing, MadeUpRows(rows), TERMS)
    return found


@pytest.mark.parametrize(
    ("status", "fields", "state", "why", "remedy"),
    [
        ("ok", {}, "pressed", "", ""),
        ("empty", {}, "pressed", "", ""),
        ("waiting", {}, "waiting", "a run with a bound left it to", "the next run over this"),
        ("failed", {}, "failed", "failed once", "look at the archive; the next run"),
        (
            *("failed", {"error_type": "ArchiveError", "attempts": 2}, "failed"),
            *("failed 2 times: ArchiveError", "tries again (try 3 of 3)"),
        ),
        (
            *("failed", {"error_type": "CodecProcessError", "attempts": 2}, "waiting"),
            *("failed 2 times: CodecProcessError", "the next run over this listing tries again"),
        ),
        ("failed", {"attempts": 3}, "failed", "failed 3 times", "no run tries it again"),
        ("failed", {"attempts": None, "callpress_version": None}, "failed", "failed once", "2 of"),
        (
            *("failed", {"attempts": 3, "callpress_version": None}, "failed", "failed 3 times"),
            "the next run over this listing tries it once, as an older version left it",
        ),
        (
            *("failed", {"error_message": f"{URI}: gone", "error_type": "StorageError"}),
            *("waiting", "failed once: StorageError: gone", "(try 2 of 3)"),
        ),
        ("partial", {"error_type": "RtpError"}, "partial", "missing: RtpError", "no run tries it"),
        ("partial", {"error_type": "StorageError"}, "partial", "StorageError", "(try 2 of 3)"),
        (
            *("failed", {"error_message": "GET /x?X-Amz-Signature=PLANTED"}, "failed"),
            *("failed once: GET /x?[hidden]", "(try 2 of 3)"),
        ),
        ("mended", {}, "failed", "'mended', which this version does not know", "the version that"),
        (None, {}, "failed", "None, which this version does not know", "the version that wrote"),
    ],
)
def test_row_says_what_became_of_a_recording(
    status: str, fields: dict[str, Any], state: str, why: str, remedy: str, tmp_path: Path
) -> None:
    found = _one(tmp_path, row_of(URI, [SESSION], status, **fields))

    assert found.state == state
    assert why in found.why
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("row", "age_ns", "is_missing"),
    [
        (None, 6 * HOUR_NS - 1, False),
        (None, 6 * HOUR_NS, True),
        (None, -5 * HOUR_NS, False),  # by clocks that do not agree
        (None, -7 * HOUR_NS, True),
        (None, None, True),
        (row_of(URI, [], "failed"), HOUR_NS, True),
        (row_of(URI, [], "failed", error_type="StorageError"), 11 * DAY_NS - 1, False),
        (row_of(URI, [], "failed", error_type="StorageError"), 11 * DAY_NS, True),
        (row_of(URI, [], "failed", error_type="StorageError"), None, False),
        (
            row_of(URI, [], "failed", error_type="StorageError", copy_uri="/copies/a"),
            *(20 * DAY_NS, False),
        ),
        (row_of(URI, [], "failed", copy_uri="/copies/a"), 20 * DAY_NS, True),
        (row_of(URI, [SESSION], "partial"), 11 * DAY_NS - 1, False),
        (row_of(URI, [SESSION], "partial"), 20 * DAY_NS, True),
        (row_of(URI, [SESSION], "ok"), 20 * DAY_NS, False),
    ],
)
def test_what_is_not_pressed_is_missing_by_its_age(
    row: Row | None, age_ns: int | None, is_missing: bool, tmp_path: Path
) -> None:
    found = _one(tmp_path, *([row] if row else []), age_ns=age_ns)

    assert found.is_missing is is_missing
    assert (found.deleted_unix_ns is None) is (age_ns is None)


def test_link_that_has_expired_is_no_try_that_is_left(tmp_path: Path) -> None:
    """Unless a copy is read in its place."""
    expired = "its link in the listing expired at 2025-01-02T00:00:00.000Z"
    failed = row_of(URI, [], "failed", error_type="StorageError")
    waits = row_of(URI, None, "waiting")

    found = [_one(tmp_path, *rows, is_expired=True) for rows in ([failed], [waits], [])]
    copied = _one(tmp_path, {**failed, "copy_uri": "/copies/a"}, is_expired=True)

    assert [each.state for each in found] == ["failed", "waiting", "absent"]
    assert all(expired in each.why and "newer listing" in each.remedy for each in found)
    assert copied.state == "waiting"


def test_one_row_answers_for_one_recording(tmp_path: Path) -> None:
    """Of two with the name of one file in one session, that which has a row of its own first."""
    own, other = "https://b.test/a.tar.gz", "https://a.test/a.tar.gz"
    listing = listing_in(
        tmp_path / "listing.json",
        [recording_of_vendor(uri, SESSION, NOW_NS - DAY_NS) for uri in (other, own)],
    )

    def states(*rows: Row) -> list[str]:
        return [str(each.state) for each in reconcile_rows(listing, MadeUpRows(rows), TERMS)]

    copies = [row_of(f"/{place}/a.tar.gz", [SESSION], "ok") for place in "xy"]
    assert states(row_of(own, [SESSION], "ok")) == ["absent", "pressed"]
    assert states(copies[0]) == ["pressed", "absent"]
    assert states(*copies) == ["pressed", "pressed"]
    assert states(row_of("/x/a.tar.gz", [], "failed")) == ["absent", "absent"]
    assert states(row_of("/x/a.tar.gz", None, "ok")) == ["absent", "absent"]


def test_archive_of_two_sessions_answers_for_one_recording_of_its_name(tmp_path: Path) -> None:
    named = [(f"https://{session}.test/a.tar.gz", session) for session in ("s1", "s2")]
    recordings = [recording_of_vendor(uri, session) for uri, session in named]
    listing = listing_in(tmp_path / "listing.json", recordings)

    found = reconcile_rows(listing, MadeUpRows([row_of("/a.tar.gz", ["s1", "s2"], "ok")]), TERMS)

    assert [str(each.state) for each in found] == ["pressed", "absent"]


def test_without_a_session_a_listing_finds_by_uri_alone(tmp_path: Path) -> None:
    elsewhere = row_of("/copies/a.tar.gz", [SESSION, ""], "ok")

    assert _one(tmp_path, elsewhere).state is State.PRESSED
    assert _one(tmp_path, elsewhere, session="").state is State.ABSENT
    assert _one(tmp_path, row_of(URI, [SESSION], "ok"), session="").state is State.PRESSED


def test_file_of_which_no_session_is_known_excuses_nothing(tmp_path: Path) -> None:
    row = row_of("/copies/a.tar.gz", [], "failed", error_type="StorageError")
    found = _one(tmp_path, row)

    assert (found.state, found.is_missing) == (State.WAITING, True)
    assert found.why == (
        "failed once: StorageError (found by the name of its file alone, of which no call session "
        "is known)"
    )


def test_catalog_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It lacks columns; what stands in none of them is not known, and so nothing of it is."""
    catalog = ROOT / "tests" / "data" / "catalog_3a91846"
    recording = recording_of_vendor("https://v.test/weekly_sync.tar.gz", "weekly-sync-2026-11-22")
    listing = listing_in(tmp_path / "listing.json", [recording])

    (found,) = reconcile(listing, str(catalog), TERMS)

    assert (found.state, found.matched_by, found.copy_uri) == ("pressed", "file_name", None)


def test_catalog_without_the_table_is_said(tmp_path: Path) -> None:
    listing = listing_in(tmp_path / "listing.json", [recording_of_vendor(URI, SESSION)])

    found = reconcile(listing, str(tmp_path / "catalog"), TERMS)

    assert [each.state for each in found] == ["absent"]
    assert found.notes == ("the catalog has no table archives: what was pressed is not known",)


def test_run_tells_of_what_it_is_about(tmp_path: Path) -> None:
    """What it passes over by the age of a recording, or may have by what only that tells, is no
    news of it.
    """
    day = {name: NOW_NS - days * DAY_NS for name, days in (("new", 1), ("old", 5))}
    write_archives(
        tmp_path,
        [("2026-01-05", row_of(f"/{name}/waits", None, "waiting")) for name in day]
        + [("2026-01-05", row_of(f"/{name}/done", ["s"], "ok")) for name in day],
    )
    named = [
        ListedRecording(uri=f"/{name}/{what}", ended_unix_ns=day.get(name), call_cid=cid)
        for name in ("new", "old", "some")
        for what, cid in (("waits", ""), ("done", ""), ("gone", ""), ("gone-of-x", "default:x"))
    ]

    def told(since: int | None = None, **filters: Any) -> tuple[int, set[str]]:
        found = reconcile_at_end(named, str(tmp_path), TERMS, Filters(**filters), since)
        return found["counts"]["pressed"], {each["uri"] for each in found["not_pressed"]}

    every = {f"/{name}/{what}" for name in day for what in ("waits", "gone", "gone-of-x")}
    unknown = {f"/some/{what}" for what in ("waits", "done", "gone", "gone-of-x")}
    assert told() == (2, every | unknown)
    assert told(since=NOW_NS - 2 * DAY_NS) == (
        1, {"/new/waits", "/new/gone", "/new/gone-of-x", "/old/waits"},
    )  # fmt: skip
    of_no_call = {"/new/gone", "/old/gone", "/some/gone", "/some/waits", "/some/done"}
    assert told(excluded_calls=("default:y",)) == (2, (every | unknown) - of_no_call)
    assert not is_told(Filters(calls=("default:x",)))


_FAR = pa.array([2**62], pa.timestamp("us", tz="UTC"))
_NO_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, *pa.array([b"/raw/\xff"], pa.binary()).buffers()[1:]]
)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("created_at", _FAR),
        ("processed_at", _FAR),
        ("error_message", _NO_UTF8),
        ("archive_uri", _NO_UTF8),
        ("attempts", pa.array(["often"])),
    ],
)
def test_value_that_no_run_writes_is_the_objects_fault(
    column: str, values: pa.Array, tmp_path: Path
) -> None:
    rows = pa.Table.from_pylist([row_of(URI, [SESSION], "ok")], SCHEMAS["archives"])
    path = tmp_path / "archives" / "call_date=2026-01-05" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(rows.set_column(rows.schema.names.index(column), column, values), path)
    listing = listing_in(tmp_path / "listing.json", [recording_of_vendor(URI, SESSION)])

    with pytest.raises(StorageError, match=f"^{path}: .*; restore it, or remove it to lose"):
        list(reconcile(listing, str(tmp_path), TERMS))
