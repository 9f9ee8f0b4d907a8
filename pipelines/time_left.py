"""How far a run on the local engine is, and how long it still takes.

The engine finishes a phase before it begins the next: all archives are unpacked, then all tracks
extracted, then all calls mixed. What is left of the phase at work is told by its own speed over the
last minutes. What the later ones will take is told from what they took elsewhere per hour of media;
how much media there is, is known only when all is unpacked, and guessed from the bytes until then.
So the figure is rough while archives are unpacked, a few hundredths of a run, and good from the
mixes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

from transforms.media.units import SAMPLE_RATE_HZ


class Phase(StrEnum):
    """What a run is doing."""

    STARTING = "starting"
    UNPACKING = "unpacking"
    EXTRACTING = "extracting"
    MIXING = "mixing"
    PUBLISHING = "publishing"
    TELLING = "telling"


_WORK = (Phase.UNPACKING, Phase.EXTRACTING, Phase.MIXING)
_CORE_SECONDS_PER_HOUR = {Phase.UNPACKING: 0.2, Phase.EXTRACTING: 0.4, Phase.MIXING: 10.0}
"""Of one core of a cloud server, per hour of one participant's audio: they matter until a phase has
shown its own speed.
"""
_SAMPLES_PER_BYTE = 10.0
"""Speech at 32 kbit/s with the headers of its packets."""
_TRUSTED_BYTES = 1_000_000
"""Of unpacked archives, that tell as much about the next ones as that guess does."""
_TRUSTED_CORE_SECONDS = 5.0
"""Of work, that tell as much about a phase's speed as the table above does."""
_MEMORY_SECONDS = 120.0
"""How long a phase's speed is remembered."""
_EVIDENCE_SECONDS = 5.0
_MOST_PERCENT = 99


def phase_of(counts: Mapping[str, int]) -> Phase:
    """Returns the phase a run's figures tell of (see `transforms.engine.progress`)."""
    if counts.get("telling", 0):
        return Phase.TELLING
    if counts.get("calls", 0) or counts.get("samples_measured", 0):
        return (
            Phase.PUBLISHING
            if counts.get("calls", 0) >= counts.get("calls_found", 0)
            else Phase.MIXING
        )
    if counts.get("calls_found", 0):
        return Phase.EXTRACTING
    return Phase.UNPACKING if counts.get("bytes_found", 0) else Phase.STARTING


class TimeLeft:
    """The estimate, kept up to date by whoever looks at the figures every second or so."""

    def __init__(self, threads: int, now: float) -> None:
        """Args: threads: codec processes at work. now: when the run began, in seconds of a clock
        that never steps.
        """
        self._threads = threads
        self._began = self._looked = now
        self.phase = Phase.STARTING
        self._measured = Phase.STARTING
        self._seconds = self._work = self._done = 0.0
        self.percent: int | None = None
        """Of the time, from beginning to end; never falls, and 100 never comes. None before there
        is evidence.
        """
        self.seconds: float | None = None
        """None before there is evidence, and in the phases without a measure."""

    def update(self, counts: Mapping[str, int], now: float) -> None:
        """Takes in a run's figures as they are now."""
        phase = self.phase = phase_of(counts)
        passed, self._looked = now - self._looked, now
        if phase not in _WORK:
            self.seconds = None
            return
        work = {each: _core_seconds(counts, each, phase) for each in _WORK}
        done, total = work[phase]
        if phase != self._measured:
            self._measured, self._seconds, self._work, self._done = phase, 0.0, 0.0, 0.0
        fade = math.exp(-passed / _MEMORY_SECONDS)
        self._seconds = self._seconds * fade + passed
        self._work = self._work * fade + max(0.0, done - self._done)
        self._done = done
        if now - self._began < _EVIDENCE_SECONDS:
            return
        expected = _TRUSTED_CORE_SECONDS / self._cores(counts, phase)
        pace = (self._seconds + expected) / (self._work + _TRUSTED_CORE_SECONDS)
        later = sum(
            work[each][1] / self._cores(counts, each) for each in _WORK[_WORK.index(phase) + 1 :]
        )
        self.seconds = max(0.0, total - done) * pace + later
        passed = now - self._began
        self.percent = max(
            self.percent or 0, min(_MOST_PERCENT, int(100 * passed / (passed + self.seconds)))
        )

    def _cores(self, counts: Mapping[str, int], phase: Phase) -> int:
        """Returns how many cores a phase keeps busy: one archive, track or call is one core's
        work.
        """
        archives = counts.get("archives_found", 0) - counts.get("archives_skipped", 0)
        pieces = {
            Phase.UNPACKING: archives,
            Phase.EXTRACTING: counts.get("tracks_found", 0) or self._threads,
            Phase.MIXING: counts.get("calls_found", 0) or archives,
        }
        return max(1, min(self._threads, pieces[phase]))


def _core_seconds(counts: Mapping[str, int], of: Phase, at: Phase) -> tuple[float, float]:
    """Returns what is done and all there is of a phase's work, seen from the phase at work, in
    seconds of one core.
    """
    per_sample = _CORE_SECONDS_PER_HOUR[of] / 3600 / SAMPLE_RATE_HZ
    if of == Phase.UNPACKING:
        per_byte = per_sample * _SAMPLES_PER_BYTE
        return counts.get("bytes_done", 0) * per_byte, counts.get("bytes_found", 0) * per_byte
    done = counts.get("samples_extracted" if of == Phase.EXTRACTING else "samples_measured", 0)
    samples = float(counts.get("samples_found", 0))
    if at == Phase.UNPACKING:
        known, unpacked = counts.get("samples_unpacked", 0), counts.get("bytes_unpacked", 0)
        per_byte = (known + _SAMPLES_PER_BYTE * _TRUSTED_BYTES) / (unpacked + _TRUSTED_BYTES)
        samples = known + max(0, counts.get("bytes_found", 0) - unpacked) * per_byte
    return done * per_sample, samples * per_sample
