"""Finding recordings: all that is asked for and nothing else, in order, with what the tables say of
each; little is read for one call; what cannot be read costs nothing else.
"""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.beam import CALL_DATE, CALL_START_UNIX_NS
from tests.support.reads import Reads
from tests.support.shelf import DAY_NS, EVERYBODY, SECOND_NS, Shelf, write_object
from transforms.catalog import parquet_objects, partitions
from transforms.elements import Row
from transforms.media.errors import ConfigError
from transforms.media.wall_time import utc_date
from transforms.retrieval.find import find, sessions_of
from transforms.retrieval.wanted import Wanted, parse_bound

_FOOTER_BYTES = 64 << 10
"""So much of an object's end Arrow reads to find its footer."""
HOUR_NS = 3_600 * SECOND_NS
NOW_NS = CALL_START_UNIX_NS + 10 * DAY_NS


def _find(catalog: Path, problems: list[str] | None = None, **wanted: Any) -> list[Row]:
    told: list[str] = []
    files = partitions.list_files(str(catalog), "recordings")
    found = list(find(str(catalog), files, Wanted(**wanted), told.append))
    if problems is None:
        assert told == []
    else:
        problems += told
    return found


def _told(rows: list[Row]) -> list[tuple[str, str, str | None]]:
    return [(row["call_id"], row["call_session_id"], row.get("participant_id")) for row in rows]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


# --- what is found --------------------------------------------------------------------------------


def test_newest_sessions_come_first_and_of_each_the_mix(shelf: Shelf) -> None:
    shelf.add("a", "zoe", EVERYBODY, "bob", session="old", day=0)
    shelf.add("b", EVERYBODY, "ann", session="late", day=3, at_s=7_200)
    shelf.add("a", EVERYBODY, "cid", session="early", day=3)

    assert _told(_find(shelf.write())) == [
        ("b", "late", None), ("b", "late", "ann"),
        ("a", "early", None), ("a", "early", "cid"),
        ("a", "old", None), ("a", "old", "zoe"), ("a", "old", "bob"),
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [0, 2], ids=["whole", "split"])
def test_one_call_has_its_sessions_of_all_dates(shelf: Shelf, bits: int) -> None:
    for day, session in ((0, "s0"), (1, "s1"), (1, "s1b"), (40, "s40")):
        shelf.add("weekly", EVERYBODY, "ann", session=session, day=day, at_s=len(session))
        shelf.add("other", EVERYBODY, session=f"o-{session}", day=day, at_s=len(session))
    catalog = shelf.write(bits)

    found = _find(catalog, call="default:weekly")

    assert [row["call_session_id"] for row in found[::2]] == ["s40", "s1b", "s1", "s0"]
    assert {row["call_cid"] for row in found} == {"default:weekly"}
    assert _find(catalog, call="default:week") == []
    assert len(_find(catalog, call="default:w*")) == 8
    sessions = sessions_of(str(catalog), "default:other", lambda problem: None)
    assert [row["call_session_id"] for row in sessions] == ["o-s40", "o-s1b", "o-s1", "o-s0"]


@pytest.mark.parametrize("call", ["", "default:a"], ids=["all", "one_call"])
@pytest.mark.parametrize("bits", [0, 2], ids=["whole", "split"])
def test_figures_are_those_of_the_track_and_for_the_mix_of_the_call(
    shelf: Shelf, call: str, bits: int
) -> None:
    shelf.add(
        "a", EVERYBODY, "ann", "bob",
        call={"status": "partial", "missing_ms": 700}, track={"status": "ok"},
    )  # fmt: skip
    if call:
        shelf.add("b", EVERYBODY, session="other")
    rows = _find(shelf.write(bits), call=call)

    assert [(row["status"], row["missing_ms"], row["sync_error_ms"]) for row in rows] == [
        ("partial", 700, 3.5), ("ok", 0, 2.5), ("ok", 0, 3.5)
    ]  # fmt: skip
    assert [row["part"] for row in rows] == [None, 0, 0]
    assert [
        row["participant_id"] for row in _find(shelf.catalog, call=call, statuses=("partial",))
    ] == [None]
    assert len(_find(shelf.catalog, call="default:a", statuses=("partial", "ok"))) == 3


def test_figures_that_no_table_has_are_not_known(shelf: Shelf) -> None:
    (row,) = shelf.add("a", "ann")
    write_object(shelf.catalog, "recordings", CALL_DATE, [row])

    (found,) = _find(shelf.catalog)

    assert (found["status"], found["missing_ms"], found["sync_error_ms"]) == (None, None, None)
    assert _find(shelf.catalog, statuses=("ok",)) == []


@pytest.mark.parametrize(
    ("wanted", "days"),
    [
        ({"since_unix_ns": CALL_START_UNIX_NS + 2 * DAY_NS}, [3, 2]),
        ({"since_unix_ns": CALL_START_UNIX_NS + 2 * DAY_NS + 1}, [3]),
        ({"until_unix_ns": CALL_START_UNIX_NS + 2 * DAY_NS}, [1, 0]),
        ({"until_unix_ns": CALL_START_UNIX_NS + 2 * DAY_NS + 1}, [2, 1, 0]),
        ({"since_unix_ns": NOW_NS}, []),
        ({"recording_types": ("individual",)}, []),
    ],
)  # fmt: skip
def test_only_what_begins_in_time_is_found(
    shelf: Shelf, wanted: dict[str, Any], days: list[int]
) -> None:
    for day in range(4):
        shelf.add(f"day-{day}", EVERYBODY, day=day)

    found = _find(shelf.write(), **wanted)

    assert [row["call_id"] for row in found] == [f"day-{day}" for day in days]


def test_participants_have_individual_files_only(shelf: Shelf) -> None:
    shelf.add("a", EVERYBODY, "ann", "bob", "Ann")

    found = _find(shelf.write(), participants=("ann", "eve"))

    assert _told(found) == [("a", "session-1", "ann")]


def test_days_far_from_what_is_wanted_are_not_looked_at(shelf: Shelf, reads: Reads) -> None:
    for day in range(0, 200, 10):
        shelf.add("a", EVERYBODY, session=str(day), day=day)
    catalog = shelf.write()
    since = CALL_START_UNIX_NS + 100 * DAY_NS

    found = _find(catalog, since_unix_ns=since, until_unix_ns=since + DAY_NS)

    assert [row["call_session_id"] for row in found] == ["100"]
    read = {uri.rsplit("/", 2)[1] for uri in reads.uris if "/recordings/" in uri}
    first = date.fromisoformat(utc_date(since)) - timedelta(days=31)
    assert {f"call_date={first + timedelta(days=each)}" for each in (1, 11, 21, 31)} == read


# --- what is read ---------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Notes the reads of objects with small row groups, of which none is too small for ranges."""
    monkeypatch.setattr(parquet_objects, "_GROUP_ROWS", 100)
    monkeypatch.setattr(parquet_objects, "_WHOLE_BYTES", 100)
    return Reads(monkeypatch)


@pytest.mark.parametrize("bits", [0, 1], ids=["whole", "split"])
def test_one_call_takes_footers_and_a_row_group_for_each_date(
    shelf: Shelf, reads: Reads, bits: int
) -> None:
    days = 4
    for day in range(days):
        for number in range(200):
            session = f"{day}-{number}"
            beside = [hashlib.shake_256(session.encode()).hexdigest(1_500)]
            shelf.add(
                f"call-{number:03}", "ann", EVERYBODY, session=session, day=day, archive_uris=beside
            )
    shelf.add("call-123x", EVERYBODY, "ann", "bob", day=2)
    catalog = shelf.write(bits)
    size_bytes = sum(path.stat().st_size for path in (catalog / "recordings").rglob("*.parquet"))
    reads.clear()

    found = _find(catalog, call="default:call-123x")

    assert len(found) == 3
    of_recordings = [uri for uri in reads.uris if "/recordings/" in uri]
    objects_read = set(of_recordings)
    # Of each object the footer and the keys of one row group, and where the call is the rest of it.
    assert len(objects_read) == days << bits
    assert len(of_recordings) == 2 * len(objects_read) + 1
    footers = len(objects_read) * _FOOTER_BYTES
    assert reads.bytes_of("/recordings/") < footers + size_bytes / 8
    # Of the others only what lies beside the call.
    for table in ("tracks", "calls"):
        assert len({uri for uri in reads.uris if f"/{table}/" in uri}) == 1


# --- what cannot be read --------------------------------------------------------------------------


def test_damaged_objects_are_told_and_cost_nothing_else(shelf: Shelf) -> None:
    shelf.add("a", EVERYBODY, day=0)
    shelf.add("b", EVERYBODY, day=1)
    shelf.add("c", EVERYBODY, day=2)
    catalog = shelf.write()
    second, third = (utc_date(CALL_START_UNIX_NS + day * DAY_NS) for day in (1, 2))
    (catalog / "recordings" / f"call_date={second}" / "part-0.parquet").write_bytes(b"PAR1")
    (catalog / "calls" / f"call_date={third}" / "part-0.parquet").write_bytes(b"")
    problems: list[str] = []

    found = _find(catalog, problems)

    assert [(row["call_id"], row["status"]) for row in found] == [("c", None), ("a", "ok")]
    assert sorted(problem.split(": ", 1)[0] for problem in problems) == [
        str(catalog / "calls" / f"call_date={third}" / "part-0.parquet"),
        str(catalog / "recordings" / f"call_date={second}" / "part-0.parquet"),
    ]


def test_rows_that_no_run_wrote_are_told_and_left_out(shelf: Shelf) -> None:
    for number, lacks in enumerate(("start_time", "uri", "start_time")):
        shelf.add(f"bad-{number}", "ann")[0][lacks] = None
    shelf.add("good", "ann")
    problems: list[str] = []

    found = _find(shelf.write(), problems)

    assert [row["call_id"] for row in found] == ["good"]
    assert sorted(problem.split(": ", 1)[1] for problem in problems) == [
        "rows without start_time: 2; callpress verify tells what to do",
        "rows without uri: 1; callpress verify tells what to do",
    ]


def test_values_that_python_has_nothing_for_cost_no_other_object(shelf: Shelf) -> None:
    shelf.add("a", EVERYBODY, "ann", day=0)
    shelf.add("b", EVERYBODY, "ann", day=1)
    catalog = shelf.write()
    dates = [utc_date(CALL_START_UNIX_NS + day * DAY_NS) for day in (0, 1)]
    for table, date_of, column in (
        ("recordings", dates[0], "participant_id"),
        ("tracks", dates[1], "status"),
    ):
        path = catalog / table / f"call_date={date_of}" / "part-0.parquet"
        rows = pq.ParquetFile(path).read()
        broken = pa.chunked_array([_no_utf8(rows.num_rows)])
        pq.write_table(rows.set_column(rows.schema.names.index(column), column, broken), path)

    for call in ("", "default:b"):
        problems: list[str] = []
        found = _find(catalog, problems, call=call)
        assert [(row["call_id"], row["status"]) for row in found] == [("b", "ok"), ("b", None)]
        assert len(problems) == (1 if call else 2)
        assert problems[0].startswith(f"{catalog}/tracks/call_date={dates[1]}")


def _no_utf8(count: int) -> pa.Array:
    buffers = pa.array([b"\xff"] * count, pa.binary()).buffers()
    return pa.Array.from_buffers(pa.string(), count, [None, *buffers[1:]])


def test_row_of_no_session_is_told_and_costs_no_other(shelf: Shelf) -> None:
    (bad,) = shelf.add("a", "ann")
    shelf.add("a", "bob", session="other")
    bad["call_session_id"] = None
    shelf.write()
    problems: list[str] = []

    (found,) = _find(shelf.catalog, problems, call="default:a")

    assert found["participant_id"] == "bob"
    assert [problem.split(": ", 1)[1] for problem in problems] == [
        "rows without call_session_id: 1; callpress verify tells what to do"
    ]


def test_row_that_is_there_twice_is_found_once(shelf: Shelf) -> None:
    """As a run that was killed while it split a shard may leave it, or one at work that moves it to
    another date.
    """
    (old,) = shelf.add("a", EVERYBODY)
    shelf.write()
    new = {**old, "sha256": "new", "created_at": old["created_at"] + timedelta(hours=1)}
    write_object(shelf.catalog, "recordings", CALL_DATE, [new], "part-1-0.parquet")
    write_object(shelf.catalog, "recordings", "2026-01-06", [old])

    (found,) = _find(shelf.catalog, call="default:a")

    assert found["sha256"] == "new"


# --- points in time -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "text", "after_start_ns"),
    [
        ("--since", "2026-01-05", -10 * HOUR_NS),
        ("--until", "2026-01-05", 14 * HOUR_NS),
        ("--until", "2026-01-05T10:00:00Z", 0),
        ("--since", "2026-01-05t11:00+01:00", 0),
        ("--since", "36h", 10 * DAY_NS - 36 * HOUR_NS),
        ("--until", "7d", 3 * DAY_NS),
    ],
)
def test_bound_is_a_day_a_time_or_an_age(flag: str, text: str, after_start_ns: int) -> None:
    assert parse_bound(flag, text, NOW_NS) == CALL_START_UNIX_NS + after_start_ns


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "36", "-1d", "3٣h", "h"])
def test_bound_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--until {text}: expected a day such as 2026-11-20"):
        parse_bound("--until", text, NOW_NS)


@pytest.mark.parametrize("text", ["999999999d", "0001-01-01", "9999-12-31"])
def test_bound_at_the_ends_of_the_calendar_finds_what_there_is(shelf: Shelf, text: str) -> None:
    shelf.add("a", EVERYBODY)
    catalog = shelf.write()
    bound = parse_bound("--since", text, NOW_NS)
    expected = 0 if text.startswith("9999-") else 1

    assert len(_find(catalog, since_unix_ns=bound)) == expected
    assert len(_find(catalog, until_unix_ns=bound)) == 1 - expected
