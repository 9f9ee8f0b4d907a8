"""Nights of 100,000 archives: what a run costs that finds all of them in the catalog, and how much
memory the merging of as many calls takes.

The archives are 20 bytes each: nothing of them is read but their names, sizes and times.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from transforms.catalog import merging
from transforms.catalog.bundles import Bundle, OwnedRows, owned
from transforms.catalog.parquet_objects import write
from transforms.catalog.row_keys import sorted_by_key
from transforms.catalog.schema import shard_name, to_table
from transforms.context import VERSION
from transforms.elements import ReplacedKey, Row, SectionRef
from transforms.media.settings import PressSettings, settings_fingerprint
from transforms.media.wall_time import to_time, utc_date

ARCHIVES = 100_000
_PER_FOLDER = 1_000
_PER_BUNDLE = 200
_MODIFIED_UNIX_S = 1_767_607_200
_DATE = utc_date(_MODIFIED_UNIX_S * 10**9)
_TRACKS = 4
"""Rows of `tracks` of a call."""


def make_night(folder: Path, home: Path, count: int = ARCHIVES) -> None:
    """Makes archives of one day, and a catalog below `out` that has all of them.

    Args:
      folder: where to.
      home: where they will lie when all are there.
      count: how many.
    """
    rows: list[Row] = []
    made = to_time((_MODIFIED_UNIX_S + 3_600) * 10**9)
    for number in range(count):
        path = folder / "raw" / f"{number // _PER_FOLDER:03d}" / f"{number:06d}.tar.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(20))
        os.utime(path, (_MODIFIED_UNIX_S, _MODIFIED_UNIX_S))
        rows.append(
            {
                "archive_uri": str(home / path.relative_to(folder)),
                "size_bytes": 20,
                "fingerprint": f"20-{_MODIFIED_UNIX_S * 10**9}",
                "call_session_ids": [f"session-{number:06d}"],
                "status": "ok",
                "attempts": 1,
                "processed_at": made,
                "callpress_version": VERSION,
                "run_id": "night",
                "created_at": made,
                "settings_fingerprint": settings_fingerprint(PressSettings()),
            }
        )
    uri = folder / "out" / "catalog" / "archives" / f"call_date={_DATE}" / shard_name(0, 0)
    write(str(uri), sorted_by_key("archives", to_table("archives", rows)))


def _stage(folder: Path, count: int) -> Iterator[SectionRef]:
    """Stages the rows of `tracks` of so many calls."""
    made = to_time(_MODIFIED_UNIX_S * 10**9)
    for start in range(0, count, _PER_BUNDLE):
        bundle = Bundle()
        for number in range(start, start + _PER_BUNDLE):
            key = ("default", f"call-{number:06d}", f"session-{number:06d}")
            bundle.add(_rows_of(key, made))
        yield from bundle.write(str(folder))


def _rows_of(key: ReplacedKey, made: object) -> tuple[OwnedRows, ...]:
    ids = dict(zip(("call_type", "call_id", "call_session_id"), key, strict=True))
    rows = [
        {
            **ids,
            "participant_id": f"participant-{number}",
            "user_session_id": f"{key[2]}-{number}",
            "output_type": "audio_only",
            "status": "ok",
            "archive_uris": [f"gs://raw/{key[1]}.tar.gz"],
            "duration_ms": 1_000 * number,
            "run_id": "night",
            "created_at": made,
        }
        for number in range(_TRACKS)
    ]
    return owned(_DATE, {"tracks": rows}, key)


def main() -> None:
    """Merges calls shard by shard, as each worker does; prints the most memory that took in bytes,
    beside what it took before, and the seconds. Arguments: a new folder, and how many calls.
    """
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    sections = list(_stage(folder / "staging", count))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    started = time.monotonic()
    merges = merging.plan_partition(str(folder / "catalog"), "tracks", _DATE, sections)
    rows = sum(merging.merge_shard(str(folder / "catalog"), merge).row_count for merge in merges)
    assert rows == count * _TRACKS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    seconds = time.monotonic() - started
    print(json.dumps({"before": before, "peak": peak, "seconds": seconds, "shards": len(merges)}))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
