"""A manifest of 100,000 signed links on the local engine: what a run costs that finds all of them
in the catalog, without a request.

    .venv/bin/python -m benchmarks.manifest_entries [COUNT]

Prints CPU seconds and the most memory of a run over a tenth of them and over all, and what one of
them took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from transforms.catalog.parquet_objects import write
from transforms.catalog.row_keys import sorted_by_key
from transforms.catalog.schema import shard_name, to_table
from transforms.context import VERSION
from transforms.media.settings import PressSettings, settings_fingerprint
from transforms.media.wall_time import to_time, utc_date

ENTRIES = 100_000
_ENDED_UNIX_NS = 1_767_607_200 * 10**9
_SIGNATURE = (
    "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260105%2F"
    "us-east-1%2Fs3%2Faws4_request&X-Amz-Date=20260105T100000Z&X-Amz-Expires=1209600"
    f"&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}"
)


def make(folder: Path, count: int) -> None:
    """Makes a manifest of recordings, and a catalog that has all of them."""
    made = to_time(_ENDED_UNIX_NS)
    rows = []
    with (folder / "listing.jsonl").open("w") as listing:
        for number in range(count):
            uri = f"https://files.example.com/raw/default/call-{number:07d}/recording.zip"
            recording = {
                "filename": "recording.zip",
                "url": uri + _SIGNATURE,
                "start_time": _ENDED_UNIX_NS,
                "end_time": _ENDED_UNIX_NS,
                "session_id": f"session-{number:07d}",
                "recording_type": "raw",
            }
            listing.write(json.dumps(recording) + "\n")
            rows.append(
                {
                    "archive_uri": uri,
                    "size_bytes": 20,
                    "fingerprint": "20-1",
                    "modified_time": made,
                    "status": "ok",
                    "attempts": 1,
                    "processed_at": made,
                    "callpress_version": VERSION,
                    "run_id": "night",
                    "created_at": made,
                    "settings_fingerprint": settings_fingerprint(PressSettings()),
                }
            )
    date = utc_date(_ENDED_UNIX_NS)
    place = folder / "out" / "catalog" / "archives" / f"call_date={date}" / shard_name(0, 0)
    write(str(place), sorted_by_key("archives", to_table("archives", rows)))


def run(folder: Path, manifest: Path, skipped: int) -> tuple[float, int]:
    """Returns the CPU seconds and the most memory in bytes of a run that skips so many archives."""
    command = ("run", "--manifest", str(manifest), "--output", str(folder / "out"))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, said
    assert f"{skipped} listed, {skipped} skipped" in said, said
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1_024


def main() -> None:
    """Prints a line for each run."""
    count = int(sys.argv[1]) if sys.argv[1:] else ENTRIES
    found = []
    for entries in (count // 10, count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, entries)
            found.append(run(folder, folder / "listing.jsonl", entries))
        seconds, peak_bytes = found[-1]
        print(f"{entries} entries, all skipped: {seconds:.1f} CPU s, {peak_bytes / 1e6:.0f} MB")
    (less_seconds, less_bytes), (seconds, peak_bytes) = found
    more = count - count // 10
    print(
        f"an entry: {(seconds - less_seconds) / more * 1e6:.0f} us, "
        f"{(peak_bytes - less_bytes) / more:.0f} bytes"
    )


if __name__ == "__main__":
    main()
