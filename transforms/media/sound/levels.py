"""Measures how loud audio is: EBU R128 integrated loudness and peak, in memory that does not grow.

The measure is that of ITU-R BS.1770-4 for one or two channels at 48 kHz: the K-weighted mean square
of blocks of 400 ms, one begun every 100 ms, without those below -70 LUFS, then without those 10 LU
below the mean of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transforms.media.units import SAMPLE_RATE_HZ, Ints, Pcm, Reals

CELL_SAMPLES = SAMPLE_RATE_HZ // 100
"""Energies are taken per 10 ms."""
QUANTUM_SAMPLES = 5 * CELL_SAMPLES
"""The filter works on multiples of 50 ms."""
# BS.1770-4 tables 1 and 2, at 48 kHz: the head's shelf, then the high pass; (b, a) of each.
_SHELF = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285),
    (1.0, -1.69065929318241, 0.73248077421585),
)
_HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))
_BLOCK = 48
_GROUP = QUANTUM_SAMPLES // _BLOCK
_STATES = 4


def _k_weighting_matrices() -> tuple[Reals, Reals, Reals, Reals]:
    """Returns the matrices that turn blocks of input into output at once, the filter being linear.

    Stepping a recursive filter sample by sample is slow in numpy. Its output over a block is a
    fixed matrix times the input plus another times the state before; the states at the edges of
    blocks follow from each other in the same way, by groups.

    Returns:
      by_input: (block, block + states): output from a block at rest, and the state it leaves.
      states_by_group: (group * states, (group + 1) * states): states before each block of a group
        and after it, from the above.
      states_by_state: (states, (group + 1) * states): what the state before the group adds to them.
      by_state: (states, block): what the state before a block adds to its output.
    """

    def in_state_space(
        b: tuple[float, ...], a: tuple[float, ...]
    ) -> tuple[Reals, Reals, Reals, float]:
        step = np.array([[-a[1], 1.0], [-a[2], 0.0]])
        return step, np.array([b[1] - a[1] * b[0], b[2] - a[2] * b[0]]), np.array([1.0, 0.0]), b[0]

    step_1, in_1, out_1, through_1 = in_state_space(*_SHELF)
    step_2, in_2, out_2, through_2 = in_state_space(*_HIGH_PASS)
    step = np.block([[step_1, np.zeros((2, 2))], [np.outer(in_2, out_1), step_2]])
    enter = np.concatenate([in_1, in_2 * through_1])
    leave = np.concatenate([through_2 * out_1, out_2])
    powers = [np.eye(_STATES)]
    for _ in range(_BLOCK):
        powers.append(step @ powers[-1])
    response = [
        through_1 * through_2,
        *(float(leave @ powers[k] @ enter) for k in range(_BLOCK - 1)),
    ]
    output = np.array(
        [[response[n - k] if n >= k else 0.0 for n in range(_BLOCK)] for k in range(_BLOCK)]
    )
    state = np.array([powers[_BLOCK - 1 - k] @ enter for k in range(_BLOCK)])
    over_block = [np.eye(_STATES)]
    for _ in range(_GROUP):
        over_block.append(powers[_BLOCK] @ over_block[-1])
    states_by_group = np.zeros((_GROUP * _STATES, (_GROUP + 1) * _STATES))
    for after in range(_GROUP + 1):
        for block in range(after):
            rows, columns = (
                slice(block * _STATES, (block + 1) * _STATES),
                slice(after * _STATES, (after + 1) * _STATES),
            )
            states_by_group[rows, columns] = over_block[after - 1 - block].T
    by_state = np.array([leave @ powers[k] for k in range(_BLOCK)]).T
    return (
        np.hstack([output, state]),
        states_by_group,
        np.hstack([p.T for p in over_block]),
        by_state,
    )


def _in_single(matrix: Reals) -> Pcm:
    return np.ascontiguousarray(matrix, dtype=np.float32)


_BY_INPUT, _STATES_BY_GROUP, _STATES_BY_STATE, _BY_STATE = _k_weighting_matrices()
_OVER_GROUP = _STATES_BY_STATE[:, -_STATES:]
# What touches every sample is done in single precision (120 dB below the sound), the states that
# go on in double.
_OUTPUT_BY_INPUT, _STATE_BY_INPUT = (
    _in_single(_BY_INPUT[:, :_BLOCK]),
    _in_single(_BY_INPUT[:, _BLOCK:]),
)
_OUTPUT_BY_STATE = _in_single(_BY_STATE)
_NONE_FRESH = np.zeros(0, dtype=np.int64)


class KWeighting:
    """The frequency weighting of BS.1770-4 for one channel, block after block."""

    def __init__(self) -> None:
        self._state = np.zeros(_STATES)

    def filter(self, audio: Pcm, fresh: Ints = _NONE_FRESH) -> Pcm:
        """Returns the weighted samples.

        Args:
          audio: one channel; its length is a multiple of `QUANTUM_SAMPLES`.
          fresh: quanta with which something new begins, the filter being at rest.
        """
        if not len(audio) or len(audio) % QUANTUM_SAMPLES:
            raise ValueError(f"{len(audio)} samples are not a multiple of {QUANTUM_SAMPLES}")
        blocks = audio.reshape(-1, _BLOCK)
        groups = (blocks @ _STATE_BY_INPUT).astype(np.float64).reshape(
            -1, _GROUP * _STATES
        ) @ _STATES_BY_GROUP
        # Of what a group was begun with 1e-4 is left at its end, 1e-9 a group later: no further
        # back is looked.
        before = np.concatenate([self._state[None, :], groups[:-1, -_STATES:]])
        before[fresh] = 0.0
        further = before[:-1] @ _OVER_GROUP
        further[fresh[fresh > 0] - 1] = 0.0
        before[1:] += further
        self._state = groups[-1, -_STATES:] + before[-1] @ _OVER_GROUP
        groups += before @ _STATES_BY_STATE
        weighted = blocks @ _OUTPUT_BY_INPUT
        weighted += groups[:, :-_STATES].reshape(-1, _STATES).astype(np.float32) @ _OUTPUT_BY_STATE
        return weighted.reshape(-1)


_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_HOP_SAMPLES = SAMPLE_RATE_HZ // 10
_HOPS = 4
_BINS_PER_LU = 100
_TOP_LUFS = 20.0


def to_lufs(mean_square: Reals) -> Reals:
    """Returns the loudness of K-weighted mean squares of all channels (BS.1770-4 equation 2)."""
    with np.errstate(divide="ignore"):
        lufs: Reals = -0.691 + 10 * np.log10(mean_square)
    return lufs


class Loudness:
    """Integrated loudness over a time line of which silence need not be given.

    Blocks are counted by their loudness, to a hundredth of a LU, so that memory does not grow with
    the programme.
    """

    def __init__(self) -> None:
        bins = round((_TOP_LUFS - _GATE_LUFS) * _BINS_PER_LU)
        self._counts = np.zeros(bins, dtype=np.int64)
        self._sums = np.zeros(bins)
        self._last = np.zeros(0)
        """Energies of the hops before the open one, as many as a block reaches back."""
        self._open: int | None = None
        """The hop that is being filled."""
        self._open_energy = 0.0

    def add(self, start_sample: Ints, energy: Reals) -> None:
        """Adds cells of 10 ms.

        Args:
          start_sample: where each begins on the line, ascending, none before what was given
            already.
          energy: sum of the K-weighted squares of its samples, over all channels.
        """
        if not len(start_sample):
            return
        hops = start_sample // _HOP_SAMPLES
        first = int(hops[0])
        if self._open is None:
            self._open = first
        if first > self._open + _HOPS:
            self._close(np.zeros(_HOPS))
            self._open, self._open_energy = first, 0.0
        sums: Reals = np.bincount(hops - self._open, weights=energy).astype(np.float64)
        sums[0] += self._open_energy
        self._open_energy = float(sums[0])
        if len(sums) > 1:
            self._close(sums[1:-1])
            self._open, self._open_energy = self._open + len(sums) - 1, float(sums[-1])

    def _close(self, more: Reals) -> None:
        """Ends the open hop and takes the whole ones behind it."""
        line = np.concatenate([self._last, [self._open_energy], more])
        self._last = line[-(_HOPS - 1) :]
        if len(line) < _HOPS:
            return
        blocks = np.convolve(line, np.full(_HOPS, 1 / (_HOPS * _HOP_SAMPLES)), "valid")
        lufs = to_lufs(blocks)
        loud = lufs > _GATE_LUFS
        bins = np.minimum(
            ((lufs[loud] - _GATE_LUFS) * _BINS_PER_LU).astype(np.int64), len(self._counts) - 1
        )
        np.add.at(self._counts, bins, 1)
        np.add.at(self._sums, bins, blocks[loud])

    def integrated_lufs(self) -> float | None:
        """Returns the loudness of all that was added, less a last 100 ms; None if silent."""
        if not self._counts.any():
            return None
        ungated = float(to_lufs(self._sums.sum() / self._counts.sum()))
        lowest = min(
            max(0, int((ungated + _RELATIVE_GATE_LU - _GATE_LUFS) * _BINS_PER_LU)),
            len(self._counts) - 1,
        )
        return float(to_lufs(self._sums[lowest:].sum() / self._counts[lowest:].sum()))


class Cells(NamedTuple):
    """Energies of 10 ms each, in order."""

    start_sample: Ints
    """Where each begins on the time line."""
    weighted: Reals
    """Sum of its K-weighted squares over all channels."""
    energy: Reals
    """Sum of its squares over all channels."""


_NO_CELLS = Cells(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0))
_SAMPLES_AT_ONCE = 10 * SAMPLE_RATE_HZ
_SILENT_UP_TO = 10 ** (-90 / 20)
"""About a step of 16-bit audio, which is what libopus's encoder leaves of silence. What its decoder
makes of empty packets is less by far, but not zero: samples of 1e-34.
"""


class LevelMeter:
    """Loudness and peak of the audio on one time line.

    What is digital silence need not be given, and costs little when it is. Audio is measured in
    blocks of about a second. Short pieces with silence between them share a block: they lie on a
    tape one behind the other, each beginning with a quantum of its own and the filter at rest.
    """

    def __init__(self, channels: int, copies: int = 1) -> None:
        """Begins with nothing measured.

        Args:
          channels: 1 or 2, of what is given.
          copies: how many channels each of them sounds on.
        """
        self._channels = channels
        self._copies = copies
        self._loudness = Loudness()
        self._filters: tuple[KWeighting, ...] = ()
        self._peak = 0.0
        self._weighted: list[Reals] = []
        self._energy: list[Reals] = []
        """Of the cells of the tape's beginning."""
        self._measured_samples = 0
        self._held: list[Pcm] = []
        """The rest of the tape."""
        self._held_samples = 0
        self._pieces: list[tuple[int, int]] = []
        """Where each piece begins: on the tape, and on the time line."""
        self._stops: list[int] = []
        """Where each but the last ends on the tape."""
        self._next_sample = 0

    def add(self, start_sample: int, audio: Pcm) -> Cells:
        """Measures audio; returns the cells that are ready, some ten seconds at a time.

        Args:
          start_sample: its place on the time line; behind what was given before.
          audio: float32, (samples, channels); may go on where the audio before it ends.
        """
        if not self._pieces or start_sample != self._next_sample:
            if self._pieces:
                self._stops.append(self._measured_samples + self._held_samples)
                self._hold_silence(-self._stops[-1] % QUANTUM_SAMPLES)
            self._pieces.append((self._measured_samples + self._held_samples, start_sample))
        self._held.append(audio)
        self._held_samples += len(audio)
        self._next_sample = start_sample + len(audio)
        if self._held_samples < SAMPLE_RATE_HZ:
            return _NO_CELLS
        whole = np.concatenate(self._held)
        taken = len(whole) - len(whole) % QUANTUM_SAMPLES
        self._measure(whole[:taken])
        self._held, self._held_samples = [whole[taken:]], len(whole) - taken
        if self._measured_samples < _SAMPLES_AT_ONCE:
            return _NO_CELLS
        cells = self._tell(self._measured_samples)
        # The piece at hand began before the new tape: the filter is not at rest.
        self._pieces = [
            (-QUANTUM_SAMPLES, self._next_sample - self._held_samples - QUANTUM_SAMPLES)
        ]
        return cells

    def end(self) -> Cells:
        """Measures what is held back, as nothing follows, and returns the rest of what is ready."""
        stop = self._measured_samples + self._held_samples
        if not stop:
            self._pieces = []
            return _NO_CELLS
        if self._held_samples:
            self._hold_silence(-stop % QUANTUM_SAMPLES)
            self._measure(np.concatenate(self._held))
        self._held, self._held_samples, self._filters = [], 0, ()
        return self._tell(stop)

    def _hold_silence(self, samples: int) -> None:
        self._held.append(np.zeros((samples, self._channels), dtype=np.float32))
        self._held_samples += samples

    def _measure(self, audio: Pcm) -> None:
        """Measures the tape's next quanta."""
        weighted = energy = np.zeros(len(audio) // CELL_SAMPLES)
        peak = float(max(audio.max(), -audio.min()))
        if peak:
            self._filters = self._filters or tuple(KWeighting() for _ in range(self._channels))
            by_channel = [
                np.ascontiguousarray(audio[:, channel]) for channel in range(self._channels)
            ]
            begins = np.array(
                [
                    at - self._measured_samples
                    for at, _ in self._pieces
                    if at >= self._measured_samples
                ]
            )
            fresh = begins[begins < len(audio)].astype(np.int64) // QUANTUM_SAMPLES
            weighted = _energies(
                [
                    k.filter(samples, fresh)
                    for k, samples in zip(self._filters, by_channel, strict=True)
                ]
            )
            energy = _energies(by_channel)
        else:
            self._filters = ()
        self._peak = max(self._peak, peak)
        self._weighted.append(weighted)
        self._energy.append(energy)
        self._measured_samples += len(audio)

    def _tell(self, stop: int) -> Cells:
        """Returns the cells of what was measured, and begins a new tape.

        Args: stop: where the last piece ends on the tape.
        """
        tape = np.arange(0, self._measured_samples, CELL_SAMPLES)
        begins, starts = np.array(self._pieces, dtype=np.int64).T
        piece = np.searchsorted(begins, tape, side="right") - 1
        kept = tape < np.array([*self._stops, stop])[piece]
        places = tape + (starts - begins)[piece]
        cells = Cells(
            places[kept], np.concatenate(self._weighted)[kept], np.concatenate(self._energy)[kept]
        )
        self._loudness.add(cells.start_sample, cells.weighted * self._copies)
        self._weighted, self._energy, self._measured_samples = [], [], 0
        self._pieces, self._stops = [], []
        return cells

    @property
    def loudness_lufs(self) -> float | None:
        """Integrated loudness of what was measured; None when it is silent."""
        return self._loudness.integrated_lufs()

    @property
    def peak_dbfs(self) -> float | None:
        """Largest sample of what was measured; None when it is silent."""
        return 20 * float(np.log10(self._peak)) if self._peak > _SILENT_UP_TO else None


def _energies(channels: Sequence[Pcm]) -> Reals:
    """Returns the energy of each cell, summed over the channels."""
    energies: Reals = np.zeros(len(channels[0]) // CELL_SAMPLES)
    for samples in channels:
        by_cell = samples.reshape(-1, CELL_SAMPLES)
        energies += np.einsum("ij,ij->i", by_cell, by_cell)
    return energies
