"""What a run costs: prints each figure beside what is to be reached; exits with 1 when one is
missed.

    benchmarks/run                     # everything, about 40 minutes
    benchmarks/run cpu dtx             # rows whose name holds one of the words
    benchmarks/run --material FOLDER   # where the recordings to press are kept or made

The installed command is measured, as a user runs it. Where it is held against ffmpeg, runs of both
take turns on the same tracks and the least of each counts: whatever else a machine does only ever
adds. CPU is that of all processes of a run.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import av

from benchmarks import at_work
from benchmarks.figures import Figure, at_least, at_most, print_table
from benchmarks.material import SMALL_CALLS, SMALLEST_CALLS, Material
from benchmarks.presses import CALLPRESS, CORES, ROOT, Presses, in_turns
from benchmarks.processes import (
    Peaks,
    ProgramFailedError,
    Used,
    idle_seconds,
    on_cores,
    peak_memory,
    run,
    seconds_until,
    traffic,
)
from pipelines import worker_size

SAMPLE = ROOT / "samples" / "weekly_sync.tar.gz"
ROUNDS = 3
START_ROUNDS = 5


# --- CPU ------------------------------------------------------------------------------------------


def _least_cpu(runs: Iterable[Used]) -> float:
    return min(used.cpu_s for used in runs)


def _least_wall(runs: Iterable[Used]) -> float:
    return min(used.wall_s for used in runs)


def _ratio(
    ours: Sequence[Used], start: Sequence[Used], bare: Sequence[Used], limit: float
) -> Figure:
    """Returns CPU less that of the start, by ffmpeg's; then where each of these lay, and the wall
    time.
    """
    start_s = _least_cpu(start)
    middle = (median(used.cpu_s for used in ours) - start_s) / median(used.cpu_s for used in bare)
    detail = (
        f" (median {middle:.2f}): {_range(ours)} less {start_s:.2f}, by {_range(bare)} CPU s; "
        f"wall {_least_wall(ours):.1f} by {_least_wall(bare):.1f} s"
    )
    return at_most((_least_cpu(ours) - start_s) / _least_cpu(bare), limit, "", detail)


def _range(runs: Sequence[Used]) -> str:
    return f"{_least_cpu(runs):.2f} to {max(used.cpu_s for used in runs):.2f}"


@functools.cache
def _four_speakers(presses: Presses) -> list[list[Used]]:
    archive, like = presses.material.four_speakers(), presses.like_for_like
    (tracks,) = presses.calls(archive)
    return in_turns(
        ROUNDS,
        lambda: presses.press(archive, config=like),
        lambda: presses.start(like),
        lambda: presses.press(archive),
        presses.start,
        lambda: presses.mix_bare(tracks),
    )


def cpu_like_for_like(presses: Presses) -> Figure:
    ours, start, _, _, bare = _four_speakers(presses)
    return _ratio(ours, start, bare, 1.0)


def cpu_defaults(presses: Presses) -> Figure:
    _, _, ours, start, bare = _four_speakers(presses)
    return _ratio(ours, start, bare, 0.75)


def cpu_dtx(presses: Presses) -> Figure:
    archive = presses.material.twenty_with_dtx()
    (tracks,) = presses.calls(archive)
    ours, start, bare = in_turns(
        ROUNDS, lambda: presses.press(archive), presses.start, lambda: presses.mix_bare(tracks)
    )
    return _ratio(ours, start, bare, 0.3)


# --- cores ----------------------------------------------------------------------------------------


@functools.cache
def _batch(presses: Presses) -> list[list[Used]]:
    """Returns the batch on two cores, on one, and ffmpeg's on two."""
    archives = presses.material.batch()
    calls = presses.calls(*archives)
    return in_turns(
        ROUNDS,
        lambda: _on(CORES, lambda: presses.press(*archives)),
        lambda: _on(1, lambda: presses.press(*archives)),
        lambda: _on(CORES, lambda: presses.batch_bare(calls)),
    )


def _on(cores: int, measure: Callable[[], Used]) -> Used:
    with on_cores(cores):
        return measure()


def batch_wall(presses: Presses) -> Figure:
    ours, _, bare = _batch(presses)
    ours_s, bare_s = _least_wall(ours), _least_wall(bare)
    return at_most(
        ours_s / bare_s,
        0.8,
        "",
        f": {ours_s:.1f} by {bare_s:.1f} s; {_range(ours)} by {_range(bare)} CPU s",
    )


def speed_up(presses: Presses) -> Figure:
    two, one, _ = _batch(presses)
    (start,) = in_turns(ROUNDS, lambda: _on(CORES, presses.start))
    two_s, one_s, start_s = _least_wall(two), _least_wall(one), _least_wall(start)
    less_start = (one_s - start_s) / (two_s - start_s)
    detail = (
        f": {one_s:.1f} by {two_s:.1f} s; less the start of {start_s:.1f} s {less_start:.2f}; "
        f"{_least_cpu(one):.1f} and {_least_cpu(two):.1f} CPU s"
    )
    return at_least(one_s / two_s, 1.8, detail)


def idle_core(presses: Presses) -> Figure:
    """What the start leaves unused is left out: a run over next to nothing is all start."""
    material = presses.material
    runs, starts = (
        [idle_seconds(presses.command(archives, presses.new_path()), CORES) for _ in range(ROUNDS)]
        for archives in (material.beside_big(), material.smallest())
    )
    start_idle_s, start_s = min(starts)
    shares = [(idle_s - start_idle_s) / (CORES * (wall_s - start_s)) for idle_s, wall_s in runs]
    idle_s, wall_s = min(runs)
    detail = (
        f" to {100 * max(shares):.2f} % of two cores; {idle_s:.1f} core s in {wall_s:.1f} s, "
        f"of which the start {start_idle_s:.1f}"
    )
    return at_most(100 * min(shares), 10, "%", detail)


# --- start-up -------------------------------------------------------------------------------------


def _start_up(limit: float, *arguments: str | Path, exit_status: int = 0) -> Figure:
    runs = [run([CALLPRESS, *arguments], exit_status=exit_status) for _ in range(START_ROUNDS)]
    slowest_s = max(used.wall_s for used in runs)
    return at_most(
        _least_wall(runs),
        limit,
        "s",
        f" to {slowest_s:.2f} s, of which {_least_cpu(runs):.2f} CPU s",
    )


def first_file(presses: Presses) -> Figure:
    seconds = []
    for _ in range(START_ROUNDS):
        output = presses.new_path()
        has_begun = functools.partial(_holds_media, output)
        seconds.append(seconds_until(presses.command([SAMPLE], output), has_begun))
    return at_most(min(seconds), 4, "s", f" to {max(seconds):.2f} s")


def _holds_media(output: Path) -> bool:
    return any(output.glob("recordings/*/*/*/[!.]*"))


def start_help(_: Presses) -> Figure:
    return _start_up(0.5, "--help")


def start_usage_error(presses: Presses) -> Figure:
    return _start_up(0.5, "run", "--output", presses.new_path(), exit_status=2)


def start_unknown_flag(presses: Presses) -> Figure:
    arguments = ("run", "--input", SAMPLE, "--output", presses.new_path(), "--no_such_flag")
    return _start_up(2, *arguments, exit_status=2)


def start_inspect(_: Presses) -> Figure:
    return _start_up(1, "inspect", SAMPLE)


def start_list_tracks(_: Presses) -> Figure:
    return _start_up(0.3, "list-tracks", "--input-file", SAMPLE)


def one_archive(presses: Presses) -> Figure:
    (tracks,) = presses.calls(SAMPLE)
    ours, bare = in_turns(
        START_ROUNDS, lambda: presses.press_by_itself(SAMPLE), lambda: presses.mix_bare(tracks)
    )
    ours_s, bare_s = _least_wall(ours), _least_wall(bare)
    detail = (
        f": {ours_s:.2f} by {bare_s:.2f} s, {_least_cpu(ours):.2f} by {_least_cpu(bare):.2f} CPU s"
    )
    return at_most(ours_s / bare_s, 1.2, "", detail)


# --- memory ---------------------------------------------------------------------------------------


def _memory(presses: Presses, *archives: Path | str, hours: float = 0.0) -> Figure:
    """Holds a run to what a worker's size is reckoned by. Args: hours: the longest segment."""
    peaks = peak_memory(presses.command(archives, presses.new_path()))
    launcher, codec = peaks.launcher, peaks.codec_process
    most = worker_size.SDK_PROCESS_BYTES, worker_size.codec_process_bytes(hours)
    return Figure(
        found=f"launcher and worker {launcher / 1e6:.0f} MB, codec process {codec / 1e6:.0f} MB",
        wanted=f"<= {most[0] / 1e6:.0f} MB, {most[1] / 1e6:.0f} MB",
        is_reached=launcher <= most[0] and codec <= most[1],
    )


def memory_one_small(presses: Presses) -> Figure:
    return _memory(presses, *presses.material.smallest())


def memory_many(presses: Presses) -> Figure:
    return _memory(presses, presses.material.small() / "*.tar.gz")


def memory_big(presses: Presses) -> Figure:
    return _memory(presses, presses.material.five_gigabytes(), hours=2)


def memory_short(presses: Presses) -> Figure:
    return _memory(presses, presses.material.twenty_with_dtx())


def memory_long(presses: Presses) -> Figure:
    return _memory(presses, presses.material.eight_hours(), hours=8)


# --- many archives --------------------------------------------------------------------------------


def cost_per_archive(presses: Presses) -> Figure:
    """The steps between the sizes are compared: the start is not in them, and of ten archives it
    would be nearly all.
    """
    folder = presses.material.small()
    ten, start = in_turns(
        START_ROUNDS, lambda: presses.press(folder / "000?.tar.gz"), presses.start
    )
    (hundred,) = in_turns(START_ROUNDS, lambda: presses.press(folder / "00??.tar.gz"))
    (thousand,) = in_turns(1, lambda: presses.press(folder / "*.tar.gz"))
    at_10, at_100, at_1000, at_start = map(_least_cpu, (ten, hundred, thousand, start))
    sizes = ((at_10, 10), (at_100, 100), (at_1000, SMALL_CALLS))
    each = [(cpu_s - at_start) / (count - SMALLEST_CALLS) for cpu_s, count in sizes]
    steps = [(at_100 - at_10) / 90, (at_1000 - at_100) / (SMALL_CALLS - 100)]
    detail = (
        f": {each[0] * 1e3:.0f}, {each[1] * 1e3:.0f}, {each[2] * 1e3:.0f} CPU ms each at 10, 100, "
        "1,000; "
        f"from 10 to 100 {steps[0] * 1e3:.0f}, from 100 to 1,000 {steps[1] * 1e3:.0f}"
    )
    return at_most(steps[1] / steps[0], 1.05, "", detail)


# --- nights ---------------------------------------------------------------------------------------


@functools.cache
def _night_skipped(presses: Presses) -> tuple[Used, Peaks]:
    """Returns what it takes to find 100,000 archives in the catalog, all of them, on two cores."""
    folder = presses.material.night()
    command = presses.command([folder / "raw" / "**"], folder / "out")
    return _on(CORES, lambda: run(command)), peak_memory(command)


def night_skipped(presses: Presses) -> Figure:
    used, _ = _night_skipped(presses)
    return at_most(used.wall_s, 60, "s", f", of which {used.cpu_s:.0f} CPU s")


def night_skipped_memory(presses: Presses) -> Figure:
    _, peaks = _night_skipped(presses)
    return at_most(peaks.launcher / 1e6, 700, "MB")


def night_merged(presses: Presses) -> Figure:
    """What the work of one worker takes, one shard after the other."""
    of_20, of_100 = (_merge_night(presses, count) for count in (20_000, 100_000))
    detail = (
        f": {of_100['peak'] / 1e6:.0f} MB by {of_20['peak'] / 1e6:.0f} MB, in "
        f"{of_100['seconds']:.0f} and {of_20['seconds']:.0f} s, {of_100['shards']} and "
        f"{of_20['shards']} shards"
    )
    return at_most(of_100["peak"] / of_20["peak"], 1.3, "", detail)


def _merge_night(presses: Presses, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.nights", str(presses.new_path()), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# --- bytes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Bytes:
    """Read or written in one run."""

    archive: int
    staging: int
    """All of it; what is renamed out of it is no staging."""
    dumps: int
    """The part of it that never leaves the step that wrote it: dumps that came before their
    metadata.
    """


@functools.cache
def _traffic(presses: Presses) -> tuple[_Bytes, _Bytes, int]:
    """Returns what was read, what was written, and the bytes of all Opus packets."""
    archive, output = presses.material.four_speakers(), presses.new_path()
    found = traffic(presses.command([archive], output))
    read, written = (
        _Bytes(
            archive=counter[str(archive)],
            staging=sum(
                count for path, count in counter.items() if path.startswith(f"{output}/.staging/")
            ),
            dumps=sum(count for path, count in counter.items() if path.endswith(".rtpdump")),
        )
        for counter in (found.read, found.written)
    )
    payload = 0
    for track in output.glob("recordings/*/*/*/individual_*.mkv"):
        with av.open(track) as container:
            payload += sum(packet.size for packet in container.demux())
    return read, written, payload


def archive_read(presses: Presses) -> Figure:
    read, _, _ = _traffic(presses)
    size = presses.material.four_speakers().stat().st_size
    return at_most(read.archive / size, 1.01, "", f" of its {size:,} bytes")


def staging_written(presses: Presses) -> Figure:
    _, written, payload = _traffic(presses)
    staged = (written.staging - written.dumps) / payload
    return at_most(
        staged,
        worker_size.STAGED_RATIO,
        "",
        f" of {payload:,} bytes of Opus; dumps spooled while unpacking {written.dumps:,} bytes",
    )


def staging_read(presses: Presses) -> Figure:
    read, written, _ = _traffic(presses)
    of_dumps = f"dumps {read.dumps / written.dumps:.2f}, " if written.dumps else ""
    rest = (read.staging - read.dumps) / (written.staging - written.dumps)
    return at_most(
        read.staging / written.staging,
        2.0,
        "",
        f" of {written.staging:,} bytes; {of_dumps}the rest {rest:.2f}",
    )


FIGURES: dict[str, Callable[[Presses], Figure]] = {
    "cpu, 4 speakers x 10 min, like for like, by ffmpeg's": cpu_like_for_like,
    "cpu, 4 speakers x 10 min, our defaults, by ffmpeg's": cpu_defaults,
    "cpu, 20 speakers x 5 min, a tenth talk, dtx, by ffmpeg's": cpu_dtx,
    "batch of 16 calls, wall on 2 cores, by ffmpeg's": batch_wall,
    "batch of 16 calls, speed-up of 2 cores": speed_up,
    "idle cores, one big call beside 12 small ones": idle_core,
    "codec jobs at work, one core": at_work.one_core,
    "codec jobs at work, two cores": at_work.two_cores,
    "codec jobs at work, two cores and --codec-processes 12": at_work.twelve,
    "codec jobs at work, two cores and 8 worker processes": at_work.of_many_workers,
    "wall by CPU over cores, two cores and 8 worker processes": at_work.wall_of_many_workers,
    "start-up, first file of the sample": first_file,
    "start-up, --help": start_help,
    "start-up, a usage error": start_usage_error,
    "start-up, an unknown flag": start_unknown_flag,
    "start-up, inspect": start_inspect,
    "start-up, list-tracks": start_list_tracks,
    "one archive by itself, process-all of the sample: wall by ffmpeg's": one_archive,
    "memory, next to nothing": memory_one_small,
    "memory, 1,000 small archives": memory_many,
    "memory, 5 min x 20 participants": memory_short,
    "memory, 8 h x 20 participants": memory_long,
    "memory, an archive of 5 GB": memory_big,
    "cpu per archive, of the next 900 by that of the next 90": cost_per_archive,
    "night of 100,000 archives, all in the catalog: wall on 2 cores": night_skipped,
    "night of 100,000 archives, all in the catalog: memory": night_skipped_memory,
    "merging 100,000 calls, memory by that of 20,000": night_merged,
    "bytes read of an archive, by its size": archive_read,
    "bytes written to staging, by the Opus packets": staging_written,
    "bytes read from staging, by those written": staging_read,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 1 when a figure is missed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run", description="Measures what a run costs."
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="measure only rows whose name holds one of these"
    )
    default = Path(tempfile.gettempdir(), "callpress-benchmarks")
    parser.add_argument(
        "--material",
        type=Path,
        default=default,
        metavar="FOLDER",
        help=f"recordings, made when missing ({default}); 6 GB",
    )
    arguments = parser.parse_args(argv)
    folder = arguments.material.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
        presses = Presses(Material(folder=folder), Path(scratch))
        figures = {
            name: functools.partial(_measure, measure, presses) for name, measure in FIGURES.items()
        }
        return print_table(figures, arguments.words)


def _measure(measure: Callable[[Presses], Figure], presses: Presses) -> Figure:
    """Returns a row's figure; one that cannot be measured is missed, and the others are measured
    all the same.
    """
    try:
        return measure(presses)
    except ProgramFailedError as error:
        print(error, file=sys.stderr)
        return Figure(found=str(error).split("\n", 1)[0], wanted="to be measured", is_reached=False)


if __name__ == "__main__":
    sys.exit(main())
