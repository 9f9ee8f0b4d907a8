"""Presses material with the installed command, and does with bare ffmpeg what a run does to the
same tracks.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.material import Material
from benchmarks.processes import Used, run

ROOT = Path(__file__).resolve().parent.parent
CALLPRESS = ROOT / ".venv" / "bin" / "callpress"
FFMPEG_LAME_LEVEL = 3
"""What a bare ffmpeg takes: with `-compression_level 3` it makes the same bytes."""
BITRATE_KBPS = 128
CORES = 2
LIKE_FOR_LIKE = f"""
[mp3]
mode = "cbr"
bitrate_kbps = {BITRATE_KBPS}
channels = 2
lame_level = {FFMPEG_LAME_LEVEL}
"""


class Presses:
    """Material, what was pressed of it, and a folder for what is not needed for long."""

    def __init__(self, material: Material, scratch: Path) -> None:
        """Args: scratch: an empty folder; who gives it deletes it."""
        self.material = material
        self._scratch = scratch
        self._numbers = itertools.count()
        self.like_for_like = scratch / "like_for_like.toml"
        self.like_for_like.write_text(LIKE_FOR_LIKE)

    def new_path(self) -> Path:
        """Returns a name that nothing has yet."""
        return self._scratch / str(next(self._numbers))

    def command(
        self, archives: Iterable[Path | str], output: Path, config: Path | None = None
    ) -> list[str | Path]:
        """Returns the command line that presses some archives or patterns."""
        inputs = itertools.chain.from_iterable(("--input", archive) for archive in archives)
        return [
            CALLPRESS,
            "run",
            *inputs,
            "--output",
            output,
            *(("--config", config) if config else ()),
        ]

    def press(self, *archives: Path | str, config: Path | None = None) -> Used:
        """Presses archives and forgets what was made. Raises: ProgramFailedError."""
        output = self.new_path()
        used = run(self.command(archives, output, config))
        shutil.rmtree(output)
        return used

    def press_by_itself(self, archive: Path) -> Used:
        """Makes the media of an archive by itself and forgets it. Raises: ProgramFailedError."""
        output = self.new_path()
        used = run([CALLPRESS, "process-all", "--input-file", archive, "--output", output])
        shutil.rmtree(output)
        return used

    def start(self, config: Path | None = None) -> Used:
        """Presses next to nothing: what that takes, every run takes. Raises: ProgramFailedError."""
        return self.press(*self.material.smallest(), config=config)

    def calls(self, *archives: Path) -> tuple[tuple[Path, ...], ...]:
        """Presses archives; returns the MKVs of each call. Raises: ProgramFailedError."""
        output = self.new_path()
        run(self.command(archives, output))
        return tuple(
            tuple(sorted(call.glob("individual_*.mkv")))
            for call in sorted(output.glob("recordings/*/*/*"))
        )

    def mix_bare(self, tracks: Sequence[Path]) -> Used:
        """Mixes tracks into a stereo MP3 with one ffmpeg of one thread. Raises:
        ProgramFailedError.
        """
        output = self.new_path()
        used = run(mix_command(tracks, output))
        output.unlink()
        return used

    def batch_bare(self, calls: Sequence[Sequence[Path]]) -> Used:
        """Makes of several calls what a run makes, two at a time. Raises: ProgramFailedError."""
        started = time.monotonic()
        with ThreadPoolExecutor(CORES) as pool:
            cpu_s = sum(pool.map(self._call_bare, calls))
        return Used(cpu_s=cpu_s, wall_s=time.monotonic() - started)

    def _call_bare(self, tracks: Sequence[Path]) -> float:
        """Copies each track of a call to MKV, then mixes them; returns the CPU seconds."""
        cpu_s = 0.0
        for track in tracks:
            output = self.new_path()
            cpu_s += run([*FFMPEG, "-i", track, "-c", "copy", "-f", "matroska", output]).cpu_s
            output.unlink()
        return cpu_s + self.mix_bare(tracks).cpu_s


FFMPEG = (
    "ffmpeg",
    "-nostdin",
    "-v",
    "error",
    "-threads",
    "1",
    "-filter_threads",
    "1",
    "-filter_complex_threads",
    "1",
)


def mix_command(tracks: Sequence[Path], output: Path) -> list[str | Path]:
    """Returns ffmpeg's command line: no loudness, no speech, no clocks, no limiter, no MKVs."""
    inputs: list[str | Path] = []
    for track in tracks:
        inputs += ["-threads", "1", "-i", track]
    mixing = ("-filter_complex", f"amix=inputs={len(tracks)}:normalize=0")
    encoding = ("-c:a", "libmp3lame", "-b:a", f"{BITRATE_KBPS}k", "-ac", "2")
    return [*FFMPEG, *inputs, *mixing, *encoding, "-threads", "1", "-f", "mp3", output]


def in_turns(rounds: int, *measures: Callable[[], Used]) -> list[list[Used]]:
    """Returns what each took in each round: one after the other, so that what else the machine does
    meets all of them.
    """
    took: list[list[Used]] = [[] for _ in measures]
    for _ in range(rounds):
        for measure, found in zip(measures, took, strict=True):
            found.append(measure())
    return took
