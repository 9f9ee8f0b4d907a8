"""What a night of any size would cost, from measured figures: CPU hours, wall time, workers,
requests to the store and bytes by kind; and what breaks first.

    .venv/bin/python -m benchmarks.scale_model
    .venv/bin/python -m benchmarks.scale_model --people 3 --minutes 30 --dtx --hours 6 --cores 8

A model, not a measurement: nobody has run a night of a million archives. What is measured is in
`scale_inputs.json` (see README.md); what is not is in `Assumptions`, and printed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.operations import INPUTS
from pipelines.worker_size import PACKET_BYTES, PACKETS_PER_HOUR
from transforms.catalog.gathering import MOST_PIECES
from transforms.catalog.schema import ADDED_TABLES, MAX_SHARD_ROWS
from transforms.media.settings import LimitSettings

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_PAGE_OBJECTS = 1_000
_ARCHIVE_READ_BYTES = 16 << 20
_STAGED_READ_BYTES = 1 << 20
_SENT_SHARE_WITH_DTX = 0.15
"""Of the packets, where senders are silent between turns."""
_MB = 10**6
_WORKER_BYTES = 16 << 30
CLASS_A = ("list", "write")
"""What Cloud Storage bills as class A; reads are class B, deletes cost nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What nobody has measured here."""

    people: int = 4
    """Participants of a call, all there from start to end; a call is one archive."""
    minutes: float = 10.0
    has_dtx: bool = False
    """Whether senders are silent between turns; without, every packet is sent."""
    hours: float = 4.0
    """In which the night is to be done: gives the number of workers."""
    cores: int = 4
    """Of a worker."""
    start_minutes: float = 5.0
    """Until a job's workers are at work."""
    page_seconds: float = 0.25
    """For a page of a listing; the pages of one pattern come one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a night costs."""

    archives: int
    cpu_hours: float
    workers: int
    wall_hours: float
    requests: Mapping[str, float]
    """By `KIND PLACE`."""
    size_bytes: Mapping[str, float]
    """The same of bytes."""

    def total(self, kind: str) -> float:
        """Returns the requests of a kind."""
        return sum(much for key, much in self.requests.items() if key.startswith(kind + " "))


class ScaleModel:
    """The model over one set of measured figures."""

    def __init__(self, inputs: Mapping[str, Any], assumed: Assumptions) -> None:
        """Args: inputs: as `scale_inputs.json` has them."""
        self._machine: Mapping[str, Any] = inputs["machine"]
        store = inputs["store"]
        self._each: Mapping[str, float] = store["per_archive"]
        self._run: Mapping[str, float] = store["per_run"]
        self._rows: Mapping[str, float] = store["rows_per_archive"]
        self._speakers: float = store["speakers"]
        self._minutes: float = store["minutes"]
        self.assumed = assumed

    # --- a night ---

    def estimate(self, archives: int) -> Estimate:
        """Returns what a night of so many archives costs."""
        assumed = self.assumed
        cpu_hours = archives * self.cpu_seconds_of_archive() / 3600
        speed = assumed.cores * self._machine["speed_up_of_2_cores"] / 2
        apart_hours = assumed.start_minutes / 60 + self.listing_seconds(archives) / 3600
        longest_hours = self.cpu_seconds_of_archive() / 3600
        left_hours = max(assumed.hours - apart_hours, longest_hours)
        workers = max(1, math.ceil(cpu_hours / (speed * left_hours)))
        return Estimate(
            archives=archives,
            cpu_hours=cpu_hours,
            workers=workers,
            wall_hours=apart_hours + max(cpu_hours / (speed * workers), longest_hours),
            requests=self._requests(archives),
            size_bytes=self._bytes(archives),
        )

    def cpu_seconds_of_archive(self) -> float:
        """Returns the CPU seconds of one archive: what any costs, and its media."""
        return self._machine["small_archive_cpu_ms"] / 1000 + self.media_cpu_seconds(
            self.assumed.people, self.assumed.minutes
        )

    def media_cpu_seconds(self, people: int, minutes: float) -> float:
        """Returns the CPU seconds of a call's media."""
        of_40 = self._machine["speaker_minutes_4_by_10_cpu_s"] / 40
        of_100 = self._machine["speaker_minutes_20_by_5_dtx_cpu_s"] / 100
        return people * minutes * (of_100 if self.assumed.has_dtx else of_40)

    def listing_seconds(self, archives: int) -> float:
        """Returns how long a listing of so many objects takes: its pages follow each other."""
        return math.ceil(archives / _PAGE_OBJECTS) * self.assumed.page_seconds

    # --- the store ---

    def _share(self, place: str) -> float:
        """Returns by how much more of a place's bytes a call has than the one that was measured."""
        minutes = self.assumed.minutes / self._minutes
        if place == "mp3":
            return minutes
        sent = _SENT_SHARE_WITH_DTX if self.assumed.has_dtx else 1.0
        return minutes * self.assumed.people / self._speakers * sent

    def archive_bytes(self, people: int, minutes: float) -> float:
        """Returns the size of an archive in which every packet was sent."""
        of_one = self._each["read archives bytes"] / (self._speakers * self._minutes)
        return people * minutes * of_one

    def _bytes(self, archives: int) -> dict[str, float]:
        found = {}
        for key in ("read archives", "write staging", "read staging", "write mkv", "write mp3"):
            place = key.split(" ")[1]
            found[key] = archives * self._each[f"{key} bytes"] * self._share(place)
        # Rows of people, and bursts of speech by their minutes.
        rows = sum(self.rows(archives).values()) / sum(self._rows.values())
        found["write tables"] = self._each["write tables bytes"] * rows
        return found

    def _requests(self, archives: int) -> dict[str, float]:
        tracks = archives * self.assumed.people
        of_track = {
            key: self._each[f"{key} requests"] / self._speakers
            for key in ("write staging", "read staging", "delete staging", "write mkv")
        }
        sizes = self._bytes(archives)
        found = {key: tracks * much for key, much in of_track.items()}
        # Larger tracks are read piece by piece, twice.
        pieces = int(sizes["write staging"] / tracks / _STAGED_READ_BYTES)
        found["read staging"] += 2 * tracks * pieces
        found["read archives"] = archives * (
            1 + math.ceil(sizes["read archives"] / archives / _ARCHIVE_READ_BYTES)
        )
        found["write mp3"] = archives * self._each["write mp3 requests"]
        found["read bundles"] = self.merge_reads(archives)
        found["write tables"] = sum(self.shards(archives).values())
        found["list all"] = sum(
            much for key, much in self._run.items() if key.startswith("list") and "req" in key
        ) + math.ceil(archives / _PAGE_OBJECTS)
        found["read run"] = sum(
            much for key, much in self._run.items() if key.startswith("read") and "req" in key
        )
        return found

    def rows(self, archives: int) -> dict[str, float]:
        """Returns how many rows each table gets."""
        people = self.assumed.people / self._speakers
        minutes = self.assumed.minutes / self._minutes
        more = {"calls": 1.0, "archives": 1.0, "runs": 0.0, "speech": people * minutes}
        return {
            table: archives * rows * more.get(table, people) for table, rows in self._rows.items()
        }

    def shards(self, archives: int) -> dict[str, int]:
        """Returns into how many objects each table of one date is divided."""
        return {
            table: 1 << max(0, math.ceil(math.log2(rows / MAX_SHARD_ROWS))) if rows else 1
            for table, rows in self.rows(archives).items()
        }

    def merge_reads(self, archives: int) -> float:
        """Returns how often merging one date reads a bundle of rows: each shard of each table reads
        its part of each. The product of the two grows with the square of the night. Nobody is told
        of such a night: bundles have nothing of `notices`.
        """
        bundles = math.ceil(archives / MOST_PIECES)
        shards = self.shards(archives)
        return bundles * sum(shards[table] for table in shards if table not in ADDED_TABLES)

    # --- what breaks ---

    def breaks(self) -> Iterator[tuple[float, str]]:
        """Yields from how many archives a night on something is too much, and what; 0 for what no
        number of archives matters to.
        """
        yield from ((0.0, line) for line in self._of_one_call(24 * 60, 200))
        at = _first(lambda count: max(self.shards(count).values()) > 1)
        yield at, "a table of one date is more than one object (100,000 rows); merged in parallel"
        rows = self.rows(10**6)
        largest = max(rows, key=lambda table: rows[table])
        yield (
            10**6 / (rows[largest] / 10**6),
            f"a date has a million rows of {largest}: {-(-(10**6) // MAX_SHARD_ROWS)} objects and "
            f"more, each merged in {self._machine['merge_shard_mb']:.0f} MB",
        )
        at = _first(lambda count: self.estimate(count).requests["read bundles"] > 10**6)
        yield at, "merging reads bundles of rows more than a million times (grows as the square)"
        of_one = self._machine["compare_100000_mb"] - self._machine["launcher_least_mb"]
        yield (
            _WORKER_BYTES / _MB / of_one * 10**5,
            f"one worker compares all archives of one date with the catalog: {of_one / 100:.1f} kB "
            "each, 16 GiB",
        )
        yield (
            600 / self.assumed.page_seconds * _PAGE_OBJECTS,
            "one pattern is listed for more than 10 minutes, page after page, on one worker: give "
            "more patterns",
        )

    def _of_one_call(self, minutes: float, people: int) -> Iterator[str]:
        """Yields which limits one call meets."""
        limits = LimitSettings()
        name = f"a call of {minutes / 60:.0f} h x {people} people"
        size_bytes = self.archive_bytes(people, minutes)
        if self.assumed.has_dtx:
            size_bytes *= _SENT_SHARE_WITH_DTX
        is_over = size_bytes > limits.max_archive_bytes
        yield (
            f"{name}: {size_bytes / 1e9:.0f} GB of packets, "
            f"{'past' if is_over else 'within'} max_archive_bytes"
            f" ({limits.max_archive_bytes / 1e9:.0f} GB an archive)"
        )
        cpu_s = self.media_cpu_seconds(people, minutes)
        is_over = cpu_s > limits.codec_seconds
        yield (
            f"{name}: {cpu_s / 3600:.1f} CPU hours, most of them in one mix, "
            f"{'past' if is_over else 'within'} codec_seconds "
            f"({limits.codec_seconds / 3600:.0f} h) if that has one core; "
            f"{_people_within(self, limits.codec_seconds, minutes)} people fit"
        )
        # 20 participants of 8 hours: what is more than a least process and the longest segment.
        of_8_h = _segment_mb(8 * 60)
        least = self._machine["codec_process_least_mb"]
        of_track = (self._machine["codec_process_8_h_mb"] - least - of_8_h) / 20
        memory = least + _segment_mb(minutes) + people * of_track
        limit = limits.codec_memory_bytes / _MB
        yield (
            f"{name}: {memory:.0f} MB in a codec process, {'past' if memory > limit else 'within'} "
            f"codec_memory_bytes ({limit:.0f} MB)"
        )


def _segment_mb(minutes: float) -> float:
    """Returns what a segment of that length takes in a codec process."""
    return minutes / 60 * PACKETS_PER_HOUR * PACKET_BYTES / _MB


def _people_within(model: ScaleModel, seconds: float, minutes: float) -> int:
    return int(seconds / model.media_cpu_seconds(1, minutes))


def _first(is_too_much: Any) -> float:
    """Returns the least number of archives, to a hundredth, of which something holds."""
    low, high = 1.0, 1e9
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_too_much(int(middle)) else (middle, high)
    return high


def _spell(number: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def table_of(model: ScaleModel, sizes: Sequence[int]) -> Table:
    """Returns the estimates of some nights, a column each."""
    estimates = [model.estimate(size) for size in sizes]
    table = Table("a night of", *(f"{size:,} archives" for size in sizes))
    table.add_row("CPU hours", *(f"{each.cpu_hours:,.1f}" for each in estimates))
    table.add_row("workers", *(f"{each.workers:,}" for each in estimates))
    table.add_row("cores (your quota)", *(
        f"{each.workers * model.assumed.cores:,}" for each in estimates
    ))  # fmt: skip
    table.add_row("wall hours", *(f"{each.wall_hours:.2f}" for each in estimates))
    for name, kinds in (("class A (list, write)", CLASS_A), ("class B (read)", ("read",))):
        table.add_row(name, *(_spell(sum(map(each.total, kinds))) for each in estimates))
    for key in estimates[0].requests:
        table.add_row(f"  {key}", *(_spell(each.requests[key]) for each in estimates))
    table.add_row("writes a second", *(
        _spell(each.total("write") / (each.wall_hours * 3600)) for each in estimates
    ))  # fmt: skip
    for key in estimates[0].size_bytes:
        table.add_row(f"{key}, bytes", *(_spell(each.size_bytes[key]) for each in estimates))
    return table


def main() -> None:
    """Prints the estimates, what they start from, and what breaks first."""
    default = Assumptions()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--people", type=int, default=default.people)
    parser.add_argument("--minutes", type=float, default=default.minutes)
    parser.add_argument("--dtx", action="store_true")
    parser.add_argument("--hours", type=float, default=default.hours)
    parser.add_argument("--cores", type=int, default=default.cores)
    given = parser.parse_args()
    assumed = Assumptions(
        people=given.people,
        minutes=given.minutes,
        has_dtx=given.dtx,
        hours=given.hours,
        cores=given.cores,
    )
    inputs = json.loads(INPUTS.read_text(encoding="utf-8"))
    model = ScaleModel(inputs, assumed)
    console = Console(width=120, highlight=False)
    console.print(
        f"measured: CPU {inputs['machine']['measured']} on {inputs['machine']['machine']}; "
        f"requests, bytes and rows {inputs['store']['measured']} on {inputs['store']['server']}"
    )
    console.print(
        f"assumed, not measured: {assumed.people} people x {assumed.minutes:g} minutes a call, "
        f"{'silent between turns (DTX)' if assumed.has_dtx else 'every packet sent'}, an archive "
        f"each, all of one date; done in {assumed.hours:g} h by workers of {assumed.cores} cores; "
        f"{assumed.start_minutes:g} minutes to start; {assumed.page_seconds} s a page of listings; "
        f"bundles of {MOST_PIECES} calls (an engine may make smaller ones)"
    )
    console.print(table_of(model, SIZES))
    console.print("what breaks first, in archives a night:")
    for archives, line in sorted(model.breaks()):
        console.print(f"{'any' if not archives else _spell(archives):>8}  {line}")


if __name__ == "__main__":
    main()
