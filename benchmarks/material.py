"""Makes the archives that speed is measured on, once, and keeps them in a folder. Equal code makes
equal archives.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import long_material, nights
from benchmarks.voices import PACKETS_PER_SECOND, TALK_SECONDS, talk, talk_in_turns
from tests.support.builders import CALL_START_UNIX_MS, Participant, Segment, make_call_archive

BATCH_CALLS = 16
BATCH_SPEAKERS = 3
BATCH_SECONDS = 120
SMALLEST_CALLS = 2
SMALL_CALLS = 1_000
SMALL_SECONDS = 3
BESIDE_CALLS = 12
"""How many small calls lie beside a big one, which is as long as all of them."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """The folder of all material; each kind is made when it is first asked for."""

    folder: Path

    def smallest(self) -> tuple[Path, ...]:
        """Two calls of one packet, an archive each: what pressing them costs, two codec processes
        started, any run costs.
        """
        return tuple(sorted(self._made("two_packets", _smallest).iterdir()))

    def four_speakers(self) -> Path:
        """One call: 4 mono speakers, 10 minutes, no DTX."""
        return self._made("four_speakers", _four_speakers) / "call.tar.gz"

    def twenty_with_dtx(self) -> Path:
        """One call: 20 speakers, 5 minutes, each in turns of 5 s that make a tenth of the time, DTX
        of libopus.
        """
        return self._made("twenty_with_dtx", _twenty_with_dtx) / "call.tar.gz"

    def batch(self) -> tuple[Path, ...]:
        """16 calls of 3 speakers, 2 minutes, an archive each."""
        return tuple(sorted(self._made("batch", _batch).iterdir()))

    def beside_big(self) -> tuple[Path, ...]:
        """12 calls of the batch, and one as long as all of them together."""
        return (*self.batch()[:BESIDE_CALLS], self._made("big", _big) / "call.tar.gz")

    def small(self) -> Path:
        """The folder of 1,000 calls of one participant, 3 s, an archive each: `0000.tar.gz` to
        `0999.tar.gz`.
        """
        return self._made("small", _small)

    def eight_hours(self) -> Path:
        """One call of 8 hours: 19 speakers as in `twenty_with_dtx`, and one who sends every packet;
        half a GB.
        """
        return self._made("eight_hours", long_material.eight_hours) / "call.tar.gz"

    def five_gigabytes(self) -> Path:
        """One call of 2 hours: two speakers in stereo at 256 kbit/s, and 4.6 GB of their video,
        which nobody wants.
        """
        return self._made("five_gigabytes", long_material.five_gigabytes) / "call.tar.gz"

    def night(self) -> Path:
        """100,000 archives of 20 bytes below `raw`, and a catalog below `out` that has them all."""
        home = self.folder / "night"
        return self._made("night", lambda folder: nights.make_night(folder, home))

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        folder = self.folder / name
        if not folder.exists():
            started = time.monotonic()
            half = self.folder / f".{name}.{os.getpid()}"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            make(half)
            half.rename(folder)
            print(f"{time.monotonic() - started:6.1f} s  made {folder}", file=sys.stderr)
        return folder


def _call(packets: Sequence[Sequence[bytes]], name: str, minute: int = 0) -> bytes:
    """Returns the archive of a call whose participants all begin with it, `minute` minutes into the
    morning.
    """
    people = [
        Participant(
            participant_id=f"p{number:02d}", segments=[Segment(packets=sent, ssrc=1_000 + number)]
        )
        for number, sent in enumerate(packets)
    ]
    start_ms = CALL_START_UNIX_MS + minute * 60_000
    return make_call_archive(
        people, call_id=name, call_session_id=f"{name}-1", call_start_unix_ms=start_ms
    )


def _four_speakers(folder: Path) -> None:
    (folder / "call.tar.gz").write_bytes(_call([talk(number) for number in range(4)], "four"))


def _twenty_with_dtx(folder: Path) -> None:
    (folder / "call.tar.gz").write_bytes(
        _call([talk_in_turns(number) for number in range(20)], "twenty")
    )


def _batch(folder: Path) -> None:
    length = BATCH_SECONDS * PACKETS_PER_SECOND
    for number in range(BATCH_CALLS):
        # Each call hears its own part of three of the voices.
        start = number * (TALK_SECONDS * PACKETS_PER_SECOND - length) // (BATCH_CALLS - 1)
        said = [
            talk((number + voice) % 4)[start : start + length] for voice in range(BATCH_SPEAKERS)
        ]
        (folder / f"{number:02d}.tar.gz").write_bytes(_call(said, f"batch-{number:02d}", number))


def _big(folder: Path) -> None:
    length = BESIDE_CALLS * BATCH_SECONDS * PACKETS_PER_SECOND
    said = [
        tuple(itertools.islice(itertools.cycle(talk(voice)), length))
        for voice in range(BATCH_SPEAKERS)
    ]
    (folder / "call.tar.gz").write_bytes(_call(said, "big"))


def _small(folder: Path) -> None:
    length = SMALL_SECONDS * PACKETS_PER_SECOND
    for number in range(SMALL_CALLS):
        start = number * length // 4 % (TALK_SECONDS * PACKETS_PER_SECOND - length)
        said = [talk(number % 4)[start : start + length]]
        (folder / f"{number:04d}.tar.gz").write_bytes(
            _call(said, f"small-{number:04d}", number % 600)
        )


def _smallest(folder: Path) -> None:
    for number in range(SMALLEST_CALLS):
        (folder / f"{number}.tar.gz").write_bytes(_call([talk(0)[:1]], f"smallest-{number}"))
