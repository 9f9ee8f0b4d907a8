"""Bundles: rows and notes of many calls in one object, of which a shard reads its own part."""

from __future__ import annotations

import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.support.beam import (
    CALL,
    CALL_COLUMNS,
    CALL_DATE,
    GroupOnce,
    call_row,
    make_pipeline,
    section_rows,
    track_row,
)
from tests.support.job_run import JobRun
from transforms.catalog.bundles import (
    Bundle,
    WrittenBundle,
    owned,
    read_keys,
    read_rows,
    removed,
    span_of,
)
from transforms.catalog.gathering import Gathered
from transforms.catalog.schema import shard_hash
from transforms.elements import ReplacedKey, SectionRef
from transforms.media.errors import StorageError
from transforms.media.values import CallKey

KEYS = [("default", "standup", f"session-{number}") for number in range(50)]


def _call(key: ReplacedKey) -> CallKey:
    return CallKey(**dict(zip(CALL_COLUMNS, key, strict=True)))


def _bundle() -> Bundle:
    bundle = Bundle()
    for number, key in enumerate(KEYS):
        tracks = [track_row(name, _call(key)) for name in ("alice", "bob")[: number % 3]]
        rows = {"calls": [call_row(_call(key))], "tracks": tracks}
        bundle.add(owned(CALL_DATE, rows, key), {"call": b'{"n":%d}' % number})
    return bundle


def _sections(context: JobRun) -> dict[str, SectionRef]:
    return {each.table: each for each in _bundle().write(context.staging_uri)}


def test_rows_come_back_by_owner_also_of_owners_without(context: JobRun) -> None:
    sections = _sections(context)

    assert {table: each.row_count for table, each in sections.items()} == {
        "calls": 50,
        "tracks": 49,
    }
    rows = section_rows(sections["tracks"])
    assert {key: [row["participant_id"] for row in found] for key, found in rows.items()} == {
        key: ["alice", "bob"][: number % 3] for number, key in enumerate(KEYS)
    }
    assert set(read_keys(span_of(sections["tracks"]), "tracks")) == set(KEYS)


@pytest.mark.parametrize("bits", [0, 1, 3, 5, 7])
def test_shards_read_their_own_part(context: JobRun, bits: int) -> None:
    section = _sections(context)["calls"]

    for shard in range(1 << bits):
        wanted = {key for key in KEYS if bits == 0 or shard_hash(key) >> (32 - bits) == shard}
        found = {key for key, _ in read_rows(span_of(section, bits, shard), "calls")}
        assert wanted <= found
        if bits <= 5:
            assert found == wanted


def test_name_is_of_what_is_in_it(context: JobRun) -> None:
    """Work that is done again in another order, with the same outcome, writes the same object."""
    forth = _bundle().write(context.staging_uri)
    back = Bundle()
    for number, key in reversed(list(enumerate(KEYS))):
        tracks = [track_row(name, _call(key)) for name in ("alice", "bob")[: number % 3]]
        rows = {"tracks": tracks, "calls": [call_row(_call(key))]}
        back.add(owned(CALL_DATE, rows, key), {"call": b'{"n":%d}' % number})
    other = Bundle()
    other.add(owned(CALL_DATE, {"calls": [call_row(_call(KEYS[0]))]}, KEYS[0]))

    assert back.write(context.staging_uri) == forth
    assert {each.uri for each in other.write(context.staging_uri)}.isdisjoint(
        each.uri for each in forth
    )


def test_notes_and_all_that_an_owner_has_are_found_again(context: JobRun) -> None:
    bundle = _bundle()
    bundle.add(removed("2026-01-03", ["archives", "failures"], ("/raw/a",)))
    (uri, *_) = {each.uri for each in bundle.write(context.staging_uri)}

    written = WrittenBundle(uri)

    assert sorted(written.notes("call")) == sorted(b'{"n":%d}' % number for number in range(50))
    assert written.notes("archive") == []
    again = Bundle()
    for rows in written.owned_by([KEYS[7], ("/raw/a",)]).values():
        again.add(rows)
    assert [
        (each.table, each.call_date, each.row_count, each.only_removes, set(section_rows(each)))
        for each in again.write(context.staged("again"))
    ] == [
        ("calls", CALL_DATE, 1, False, {KEYS[7]}),
        ("tracks", CALL_DATE, 1, False, {KEYS[7]}),
        ("archives", "2026-01-03", 0, True, {("/raw/a",)}),
        ("failures", "2026-01-03", 0, True, {("/raw/a",)}),
    ]


@pytest.mark.parametrize("place", [0, 300, -1, -200])
def test_bundle_that_is_not_as_it_was_written_is_told(context: JobRun, place: int) -> None:
    uri = _sections(context)["calls"].uri
    data = bytearray(Path(uri).read_bytes())
    data[place] ^= 1
    Path(uri).write_bytes(data)

    with pytest.raises(StorageError, match=r"\.jsonl: not as it was written"):
        WrittenBundle(uri)


def test_section_that_was_cut_short_is_told(context: JobRun) -> None:
    section = _sections(context)["tracks"]
    path = Path(section.uri)
    path.write_bytes(path.read_bytes()[: section.starts[-1] - 20])

    with pytest.raises(StorageError, match=r"\.jsonl: .* bytes came from byte"):
        section_rows(section)
    path.write_bytes(bytes(section.starts[-1]))
    with pytest.raises(StorageError, match=r"\.jsonl: rows of tracks are cut short or damaged"):
        section_rows(section)


def test_line_ends_and_odd_letters_in_keys_do_not_part_rows(context: JobRun) -> None:
    key = ("default", "a\nb\r\u2028", '"] ü')
    bundle = Bundle()
    bundle.add(owned(CALL_DATE, {"tracks": [track_row("x\ny", _call(key))]}, key))
    (section,) = bundle.write(context.staging_uri)

    assert [row["participant_id"] for row in section_rows(section)[key]] == ["x\ny"]
    assert list(read_keys(span_of(section), "tracks")) == [key]


def test_column_that_a_table_does_not_have_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="table calls has no column"):
        owned(CALL_DATE, {"calls": [{"colour": "red"}]}, KEYS[0])


def test_reference_goes_through_a_shuffle_unchanged(context: JobRun) -> None:
    refs = list(_sections(context).values())
    with make_pipeline() as pipeline:
        assert_that(pipeline | beam.Create(refs) | GroupOnce(), equal_to(refs))


# --- gathering ------------------------------------------------------------------------------------


def _state(gathered: Gathered) -> tuple[bool, bool, float | None]:
    return gathered.is_empty, gathered.is_due, gathered.seconds_left


def test_what_is_gathered_is_due_after_200_pieces(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1_000.0)
    gathered = Gathered()
    for number in range(199):
        gathered.add((), {"call": b"%d" % number}, [number])
    assert _state(gathered) == (False, False, 30.0)

    gathered.add((), {"call": b"199"}, [199])

    assert _state(gathered) == (False, True, 30.0)
    assert gathered.write(context.staging_uri) == ([], list(range(200)))
    assert _state(gathered) == (True, False, None)


def test_what_is_gathered_is_due_after_32_mib(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is in memory until it is written."""
    monkeypatch.setattr(time, "monotonic", lambda: 1_000.0)
    gathered = Gathered()
    gathered.add((), {"call": b"1" * (31 << 20)}, [1])
    assert _state(gathered) == (False, False, 30.0)

    gathered.add(owned(CALL_DATE, {"calls": [call_row()]}, CALL.as_tuple()), {}, [2])
    assert _state(gathered) == (False, False, 30.0)
    gathered.add((), {"call": b"3" * (1 << 20)}, [3])

    assert _state(gathered) == (False, True, 30.0)
    assert gathered.write(context.staging_uri)[1] == [1, 2, 3]
    assert _state(gathered) == (True, False, None)


def test_what_is_gathered_is_due_after_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    gathered = Gathered()
    assert _state(gathered) == (True, False, None)
    gathered.add((), {"call": b"1"})
    now += 20
    gathered.add((), {"call": b"2"})

    assert _state(gathered) == (False, False, 10.0)
    now += 11
    assert _state(gathered) == (False, True, 0.0)
