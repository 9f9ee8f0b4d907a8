"""Counts what a run asks of a store: requests and bytes, by kind and by what they are for. None of
it depends on how busy the machine is. Writes what `scale_model` starts from.

    .venv/bin/python -m benchmarks.operations              # prints the counts
    .venv/bin/python -m benchmarks.operations --write      # and writes scale_inputs.json

The calls of the row `batch` (3 speakers, 2 minutes, no DTX, an archive each) lie in a storage
emulator, and the installed command presses them there through a proxy that counts. Of two nights of
`FEW` and of `MANY` archives the difference is what an archive costs, and what is left of one is
what a run costs whatever it presses. A third night finds all of them in the catalog.

CPU and memory are not measured here: they are read from the last tables of README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from benchmarks.material import BATCH_SECONDS, BATCH_SPEAKERS, Material
from benchmarks.presses import CALLPRESS, ROOT
from tests.support.storage_proxy import Exchange, Faults, proxied
from tests.support.storage_servers import running_emulator
from transforms.catalog.schema import TABLES

INPUTS = ROOT / "benchmarks" / "scale_inputs.json"
README = ROOT / "benchmarks" / "README.md"
FEW, MANY = 4, 16
_BUCKET = "calls"
_ROWS = {
    # name of the figure: the row of README's table, and where in what was found it stands
    "speaker_minutes_4_by_10_cpu_s": ("CPU, 4 speakers x 10 min, our defaults", r"\(([\d.]+) by"),
    "speaker_minutes_20_by_5_dtx_cpu_s": ("CPU, 20 speakers x 5 min", r"\(([\d.]+) by"),
    "speed_up_of_2_cores": ("batch of 16 calls, speed-up of 2 cores", r"\*\*([\d.]+)\*\*"),
    "small_archive_cpu_ms": ("CPU per archive", r"\((\d+), \d+ ms\)"),
    "codec_process_8_h_mb": ("memory, 8 h x 20 participants", r"MB, (\d+) MB"),
    "codec_process_least_mb": ("memory, two packets", r"MB, (\d+) MB"),
    "launcher_least_mb": ("memory, two packets", r"^(\d+) MB"),
    "compare_100000_mb": ("night of 100,000 archives, all in the catalog: memory", r"^(\d+) MB"),
    "merge_shard_mb": ("merging 100,000 calls: memory", r"^(\d+) MB"),
}
Counts = dict[str, int]
"""Requests as `KIND PLACE requests`, bytes as `KIND PLACE bytes`."""


def machine_figures() -> dict[str, Any]:
    """Returns the figures that README.md's last table has, with its machine and day."""
    text = README.read_text(encoding="utf-8")
    head = re.search(r"The last table, on (.+?), (\d{4}-\d\d-\d\d)", text)
    assert head is not None, "README.md says no more where its table was made"
    found: dict[str, Any] = {"machine": head[1], "measured": head[2]}
    for name, (row, pattern) in _ROWS.items():
        line = re.search(rf"^\| {re.escape(row)}[^|]*\| ([^|]*)\|", text, re.MULTILINE)
        figure = line and re.search(pattern, line[1])
        assert figure, f"README.md has no row {row!r} with {pattern!r}"
        found[name] = float(figure[1])
    return found


def classify(exchange: Exchange) -> tuple[str, str, int, int]:
    """Returns the kind of a request to Cloud Storage, what it is for, how many operations it is and
    the bytes of objects that it carries.
    """
    method, path, *names = exchange.request.split(" ")
    parts = urlsplit(path)
    query = parse_qs(parts.query)
    if path.startswith("/batch/"):
        deleted = re.findall(rb"(?m)^DELETE \S*?/o/(\S+)", exchange.sent)
        return "delete", _place_of(deleted[0].decode()), len(deleted), 0
    if "/upload/" in parts.path:
        name = next(filter(None, names), query.get("name", [""])[0])
        is_whole = method == "POST" and "resumable" not in parts.query
        data = _body_of_upload(exchange.sent) if is_whole else 0
        if method == "PUT":
            data = len(exchange.sent)
        return "write", _place_of(name), int(method == "POST"), data
    name = parts.path.partition("/o/")[2]
    if not name:
        return "list", _place_of(query.get("prefix", [""])[0]), 1, len(exchange.received)
    if method == "DELETE":
        return "delete", _place_of(name), 1, 0
    return "read", _place_of(name), 1, len(exchange.received)


def _body_of_upload(sent: bytes) -> int:
    """Returns the length of the object in a multipart upload: what follows its second head."""
    boundary = sent.split(b"\r\n", 1)[0]
    parts = sent.split(boundary)
    return len(parts[2].split(b"\r\n\r\n", 1)[1]) - 2


def _place_of(name: str) -> str:
    name = name.replace("%2F", "/")
    if name.startswith("raw"):
        return "archives"
    if name.startswith("tmp"):
        return "staging"
    if name.endswith(".mkv"):
        return "mkv"
    if name.endswith(".mp3"):
        return "mp3"
    return "lock" if name.endswith("callpress.lock") else "tables"


@contextmanager
def _counting(server: str) -> Iterator[tuple[str, Counts]]:
    """Runs a proxy before a server; gives its URL, and the counts that it fills."""
    counts: Counts = {}

    def count(exchange: Exchange) -> None:
        kind, place, operations, size_bytes = classify(exchange)
        for what, much in (("requests", operations), ("bytes", size_bytes)):
            key = f"{kind} {place} {what}"
            counts[key] = counts.get(key, 0) + much

    with proxied(server, Faults(after=count)) as url:
        yield url, counts


def count_night(archives: Sequence[Path], again: bool = False) -> tuple[Counts, Counts]:
    """Returns what pressing some archives asks of an empty store, and of one that has them all.

    Args:
      archives: to press.
      again: whether the second night is wanted; without, its counts are empty.

    Raises:
      CalledProcessError: a run fails.
    """
    with running_emulator(_BUCKET) as server:
        client = storage.Client(
            project="anonymous",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": server},
        )
        for path in archives:
            client.bucket(_BUCKET).blob(f"raw/{path.name}").upload_from_filename(str(path))
        nights = [_press(server), _press(server) if again else {}]
    return nights[0], nights[1]


def _press(server: str) -> Counts:
    place = f"gs://{_BUCKET}"
    with _counting(server) as (url, counts):
        flags = ("--input", f"{place}/raw/*", "--output", f"{place}/out")
        subprocess.run(
            [CALLPRESS, "run", *flags, "--temp_location", f"{place}/tmp"],
            env={**os.environ, "STORAGE_EMULATOR_HOST": url},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    return counts


def per_archive(few: Counts, many: Counts, more: int) -> dict[str, float]:
    """Returns what each archive more costs. Args: more: how many more `many` has than `few`."""
    keys = sorted(few.keys() | many.keys())
    return {key: (many.get(key, 0) - few.get(key, 0)) / more for key in keys}


def per_run(few: Counts, each: Mapping[str, float], count: int) -> dict[str, float]:
    """Returns what is left of a night of so many archives: what a run costs whatever it presses."""
    return {key: few.get(key, 0) - count * much for key, much in each.items()}


def count_rows(archives: Sequence[Path]) -> dict[str, float]:
    """Returns how many rows of each table an archive gives. Raises: CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = [part for path in archives for part in ("--input", str(path))]
        command = [str(CALLPRESS), "run", *inputs, "--output", folder]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return {
            table: sum(
                pq.ParquetFile(path).metadata.num_rows
                for path in Path(folder, "catalog", table).rglob("*.parquet")
            )
            / len(archives)
            for table in TABLES
        }


def measure(material: Material) -> dict[str, Any]:
    """Returns all that the model starts from."""
    archives = material.batch()
    few, _ = count_night(archives[:FEW])
    many, known = count_night(archives[:MANY], again=True)
    each = per_archive(few, many, MANY - FEW)
    return {
        "machine": machine_figures(),
        "store": {
            "measured": f"{datetime.now(UTC):%Y-%m-%d}",
            "server": "gcp-storage-emulator, local engine, --temp_location in the bucket",
            "archives": [FEW, MANY],
            "speakers": BATCH_SPEAKERS,
            "minutes": BATCH_SECONDS / 60,
            "rows_per_archive": count_rows(archives[:FEW]),
            "per_archive": each,
            "per_run": per_run(few, each, FEW),
            "nothing_new": {key: float(much) for key, much in sorted(known.items())},
        },
    }


def main() -> None:
    """Measures, prints and perhaps writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help=f"write {INPUTS.name}")
    parser.add_argument(
        "--material", type=Path, metavar="FOLDER",
        default=Path(tempfile.gettempdir()) / "callpress-benchmarks",
        help="where the recordings are kept or made",
    )  # fmt: skip
    arguments = parser.parse_args()
    text = json.dumps(measure(Material(folder=arguments.material)), indent=2) + "\n"
    print(text, end="")
    if arguments.write:
        INPUTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
