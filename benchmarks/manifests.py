"""Reads manifests of a million entries: seconds, and the most memory that was held.

    .venv/bin/python -m benchmarks.manifests              # all shapes, a million entries each
    .venv/bin/python -m benchmarks.manifests 100000 list  # fewer, and of these shapes

Each shape is read in a process of its own. The manifest is written to disk before, so that making
it counts for nothing.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from transforms.sources.manifests.entry import ManifestEntry
from transforms.sources.manifests.read_entries import read_entries

_ENTRIES = 1_000_000
_QUERY = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260508%2Fus-east-1"
    "%2Fs3%2Faws4_request&X-Amz-Date=20260508T000000Z&X-Amz-Expires=1209600"
    "&X-Amz-SignedHeaders=host&X-Amz-Signature="
)
_NS = 1_778_198_400_000_000_000


def _recording(number: int) -> dict[str, object]:
    signature = f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}" * 4
    return {
        "filename": f"rec_{number}.tar.gz",
        "url": f"https://recordings.example.com/raw/rec_{number}.tar.gz?{_QUERY}{signature}",
        "start_time": _NS + number,
        "end_time": _NS + number + 3_600_000_000_000,
        "session_id": f"session-{number}",
        "recording_type": "raw",
    }


def _event(number: int) -> dict[str, object]:
    return {
        "type": "call.recording_ready",
        "created_at": _NS + number,
        "call_cid": f"default:{number}",
        "egress_id": f"egress-{number}",
        "recording_type": "raw",
        "call_recording": _recording(number),
    }


def _list(count: int) -> Iterator[str]:
    yield '{"duration": "1ms", "recordings": ['
    for number in range(count):
        yield (",\n" if number else "") + json.dumps(_recording(number))
    yield "]}"


def _one_line(count: int) -> Iterator[str]:
    for text in _list(count):
        yield text.replace("\n", "")


_SHAPES = {
    "list": _list,
    "list-on-one-line": _one_line,
    "events": lambda count: (json.dumps(_event(number)) + "\n" for number in range(count)),
    "events-gzipped": lambda count: (json.dumps(_event(number)) + "\n" for number in range(count)),
    "csv": lambda count: (
        f"{_recording(number - 1)['url']},{_NS}\n" if number else "url,end_time\n"
        for number in range(count + 1)
    ),
    "links": lambda count: (f"{_recording(number)['url']}\n" for number in range(count)),
}


def _measure(path: Path, count: int) -> None:
    """Reads a manifest and prints what that took."""
    at_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with path.open("rb") as file:
        found = sum(isinstance(each, ManifestEntry) for each in read_entries(str(path), file))
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert found == count, f"{found} entries, expected {count}"
    print(
        f"{path.name:18} {path.stat().st_size / 1e6:7.0f} MB {seconds:6.1f} s of CPU, "
        f"{seconds / count * 1e6:5.1f} us an entry, {(peak - at_start) / 1024:5.1f} MB more memory",
        flush=True,
    )


def main() -> None:
    """Measures the shapes that are named, or all."""
    arguments = sys.argv[1:]
    count = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else _ENTRIES
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments or _SHAPES:
            path = Path(folder) / name
            opener = gzip.open if name.endswith("gzipped") else open
            with opener(path, "wt", encoding="utf-8") as file:
                file.writelines(_SHAPES[name](count))
            child = os.fork()
            if child == 0:
                _measure(path, count)
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                sys.exit(1)
            path.unlink()


if __name__ == "__main__":
    main()
