"""A night of 5,000 calls of one date, in a bucket: how often and how much is read to publish it,
and to find out that it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.beam import (
    CALL_DATE,
    call_row,
    recording_row,
    stamp,
    track_row,
)
from tests.support.storage_proxy import Faults
from tests.support.storage_servers import client_with_faults, running_emulator
from transforms.catalog import merging
from transforms.catalog.bundles import Bundle, owned
from transforms.catalog.partitions import count_rows, list_files
from transforms.elements import Row, SectionRef
from transforms.media.values import CallKey
from transforms.skip_processed import recorded

BUCKET = "night"
CATALOG = f"gs://{BUCKET}/catalog"
CALLS = 5_000
CALLS_PER_BUNDLE = 200


@pytest.fixture(scope="module")
def bucket() -> Iterator[Faults]:
    """Gives what stands between this process and the bucket, with all requests counted."""
    with (
        pytest.MonkeyPatch.context() as patch,
        running_emulator(BUCKET) as server,
        client_with_faults(server, patch) as between,
    ):
        yield between


def _call(number: int) -> CallKey:
    return CallKey(call_type="default", call_id=f"c{number:05d}", call_session_id=f"s{number:05d}")


def _uri(number: int) -> str:
    return f"gs://{BUCKET}/raw/{number:05d}.tar.gz"


def _rows(number: int) -> dict[str, list[Row]]:
    call = _call(number)
    return {
        "calls": [call_row(call)],
        "tracks": [track_row(name, call) for name in ("alice", "bob")],
        "recordings": [
            recording_row(name, f"gs://{BUCKET}/out/{number}-{name}", call)
            for name in (None, "alice", "bob")
        ],
        "speech": [],
    }


@pytest.fixture(scope="module")
def sections(bucket: Faults) -> list[SectionRef]:
    """Stages the night: rows of calls by the 200, of archives by the 500."""
    found: list[SectionRef] = []
    for start in range(0, CALLS, CALLS_PER_BUNDLE):
        bundle = Bundle()
        for number in range(start, start + CALLS_PER_BUNDLE):
            bundle.add(owned(CALL_DATE, _rows(number), _call(number).as_tuple()))
        found += bundle.write(f"gs://{BUCKET}/staging/run-1")
    for start in range(0, CALLS, 500):
        bundle = Bundle()
        for number in range(start, start + 500):
            row = stamp({"archive_uri": _uri(number), "status": "ok", "fingerprint": "1-a"})
            bundle.add(owned(CALL_DATE, {"archives": [row]}, (_uri(number),)))
        found += bundle.write(f"gs://{BUCKET}/staging/run-1")
    return found


def _reads(bucket: Faults) -> Counter[str]:
    """Counts the requests from now on, by their method."""
    counted: Counter[str] = Counter()
    bucket.before = lambda request: counted.update([request.split(" ", 1)[0]])
    return counted


@pytest.mark.parametrize(
    ("table", "shard_rows"),
    [("calls", 100_000), ("archives", 100_000), ("recordings", 100_000), ("recordings", 4_000)],
    ids=["calls", "archives", "recordings", "recordings in 4 shards"],
)
def test_merging_asks_seldom_and_reads_no_row_twice(
    bucket: Faults, sections: list[SectionRef], table: str, shard_rows: int
) -> None:
    catalog_uri = f"{CATALOG}-{shard_rows}"
    own = [section for section in sections if section.table == table]
    size_bytes = sum(section.starts[-1] - section.starts[0] for section in own)
    reads = _reads(bucket)

    merges = merging.plan_partition(catalog_uri, table, CALL_DATE, own, shard_rows)
    done = [merging.merge_shard(catalog_uri, merge) for merge in merges]

    assert sum(each.row_count for each in done) == sum(section.row_count for section in own)
    assert len(merges) == (4 if shard_rows == 4_000 else 1)
    assert 0 < reads["GET"] * 100 / CALLS < 5
    spans = [span for merge in merges for span in merge.spans]
    assert sum(stop - start for _, start, stop in spans) == size_bytes


def test_archives_that_are_there_are_found_with_few_reads(
    bucket: Faults, sections: list[SectionRef]
) -> None:
    own = [section for section in sections if section.table == "archives"]
    merging.merge_partition(CATALOG, "archives", CALL_DATE, own)
    reads = _reads(bucket)

    found = {
        row["archive_uri"]
        for row in recorded(CATALOG, CALL_DATE, [_uri(number) for number in range(CALLS)])
    }

    assert len(found) == CALLS
    files = list_files(CATALOG, "archives", CALL_DATE)
    assert sum(map(count_rows, files)) == CALLS
    assert reads["GET"] <= 2 + 4 * len(files)
    assert sum(file.size_bytes for file in files) < 200 * CALLS
