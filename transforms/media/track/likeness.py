"""Whether two packet runs hold the same audio where they overlap: by their bytes, or their sound.

Looks only at what overlaps, and for that keeps 40 bytes a packet.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import BinaryIO

import numpy as np

from transforms.media.errors import AudioDecodeError
from transforms.media.opus.libopus import OpusDecoder
from transforms.media.track.shares import Bools
from transforms.media.track.staged_packets import StagedPacketRun, read_packet_run
from transforms.media.track.timeline import Piece
from transforms.media.units import NS_PER_SECOND, SAMPLE_RATE_HZ, Ints, Pcm, Reals

_MOST_APART_NS = NS_PER_SECOND
"""Two servers that record the same packets are in step by NTP: further apart, equal packets are
silence, or chance.
"""
_LEAST_EQUAL = 10
"""Different packets of a size that speech has, equal one after the other at one distance: no two
encoders do that.
"""
_LEAST_EQUAL_BYTES = 10
_DECIMATION = 6
_LEAST_JUDGED_NS = NS_PER_SECOND // 5
"""Two vowels of one pitch look alike for a tenth of a second."""
MOST_JUDGED_NS = 60 * NS_PER_SECOND
"""A new source takes over within seconds. Both are decoded for as long."""
_WARM_UP_SAMPLES = 3_840
"""80 ms: what a decoder needs until it sounds as one that was not started anew (RFC 7845 s4.6)."""
_MOST_LAG_SAMPLES = 1_920
_LIKE = 0.7
_WINDOW_LIKE = 0.4
_FAINT = 1e-3
"""Of the mean square of both: a second that is as faint has nothing to compare."""
_SILENT = 1e-9


@dataclass(slots=True)
class Prints:
    """Packets of a packet run about where another one overlaps it, in order of media time.

    All arrays have shape (packets,).
    """

    index: Ints
    """Which of the packet run's packets; -1 for one that another recording lent."""
    media_sample: Ints
    duration_samples: Ints
    start_ns: Ints
    """Server time."""
    stop_ns: Ints
    digest: Ints
    size_bytes: Ints

    def within(self, first_ns: int, stop_ns: int) -> Prints:
        """Returns those that begin within a time."""
        part = slice(*np.searchsorted(self.start_ns, [first_ns, stop_ns]).tolist())
        return Prints(*(getattr(self, each.name)[part] for each in fields(self)))

    def with_lent(self, other: Prints, which: Bools, shift_samples: int) -> Prints:
        """Returns these and some of another packet run's, at their media time here."""
        lent = Prints(*(getattr(other, each.name)[which] for each in fields(other)))
        lent.index = np.full_like(lent.index, -1)
        lent.media_sample = lent.media_sample + shift_samples
        places = np.searchsorted(self.media_sample, lent.media_sample)
        return Prints(
            *(
                np.insert(getattr(self, each.name), places, getattr(lent, each.name))
                for each in fields(self)
            )
        )


def server_times_ns(pieces: Sequence[Piece], media_sample: Ints) -> Ints:
    """Returns the server time of each media time of a packet run."""
    media_starts = np.array([piece.clock.media_start_sample for piece in pieces], dtype=np.int64)
    starts_ns = np.array([piece.clock.server_start_unix_ns for piece in pieces], dtype=np.int64)
    ratios = np.array([piece.clock.clock_rate_ratio for piece in pieces])
    of = np.maximum(np.searchsorted(media_starts, media_sample, side="right") - 1, 0)
    past_ns = (media_sample - media_starts[of]) * ratios[of] * (NS_PER_SECOND / SAMPLE_RATE_HZ)
    times_ns: Ints = starts_ns[of] + np.rint(past_ns).astype(np.int64)
    return times_ns


def take_prints(
    file: BinaryIO, pieces: Sequence[Piece], first_unix_ns: int, stop_unix_ns: int
) -> Prints:
    """Returns prints of the packets of a packet run that begin within a time.

    Args:
      file: the staged packets of its part.
      pieces: all of the packet run.
      first_unix_ns, stop_unix_ns: server times.
    """
    found: list[tuple[Ints, ...]] = []
    first = 0
    for window in read_packet_run(file, pieces[0].packet_run):
        media_sample = window.records["media_sample"].astype(np.int64)
        duration_samples = window.records["duration_samples"].astype(np.int64)
        start_ns = server_times_ns(pieces, media_sample)
        wanted = np.flatnonzero((start_ns >= first_unix_ns) & (start_ns < stop_unix_ns))
        size = window.records["packet_bytes"].astype(np.int64)
        place = np.cumsum(size) - size
        payload = window.payload.tobytes() if len(wanted) else b""
        digests = [
            _digest(payload[at : at + length])
            for at, length in zip(place[wanted].tolist(), size[wanted].tolist(), strict=True)
        ]
        found.append(
            (
                wanted + first,
                media_sample[wanted],
                duration_samples[wanted],
                start_ns[wanted],
                server_times_ns(pieces, (media_sample + duration_samples)[wanted]),
                np.array(digests, dtype=np.int64),
                size[wanted],
            )
        )
        first += len(media_sample)
        if start_ns[-1] >= stop_unix_ns:
            break
    index, media, duration, start, stop, digest, sizes = (
        np.concatenate(column) for column in zip(*found, strict=True)
    )
    return Prints(
        index=index,
        media_sample=media,
        duration_samples=duration,
        start_ns=start,
        stop_ns=stop,
        digest=digest,
        size_bytes=sizes,
    )


def _digest(packet: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(packet, digest_size=8).digest(), "big", signed=True)


# --- the same bytes -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SamePackets:
    """How a packet run lies to another recording of the same packets."""

    shift_samples: int
    """Media time in the other, less that in this one."""
    is_equal: Bools
    """Which of this one's prints the other has, too; shape (packets,)."""


def find_same_packets(mine: Prints, other: Prints) -> SamePackets | None:
    """Returns how a packet run lies to another recording of the same packets, None when it is not
    one.

    It is one where ten different packets of both are equal at one distance of media time, or half
    of the bytes of those that both have at that distance.
    """
    shift = _commonest_shift(mine, other)
    if shift is None:
        return None
    wanted = mine.media_sample + shift
    place = np.minimum(np.searchsorted(other.media_sample, wanted), len(other.index) - 1)
    is_common = other.media_sample[place] == wanted
    is_equal = is_common & (other.digest[place] == mine.digest)
    large = is_equal & (mine.size_bytes >= _LEAST_EQUAL_BYTES)
    equal_bytes = int(mine.size_bytes[is_equal].sum())
    is_same = (
        len(np.unique(mine.digest[large])) >= _LEAST_EQUAL
        or 2 * equal_bytes >= int(mine.size_bytes[is_common].sum()) > 0
    )
    return SamePackets(shift, is_equal) if is_same else None


def _commonest_shift(mine: Prints, other: Prints) -> int | None:
    """Returns the distance in media time at which the most bytes are equal."""
    if not len(mine.index) or not len(other.index):
        return None
    _, content = np.unique(np.concatenate([other.digest, mine.digest]), return_inverse=True)
    # By content, and by time within it: the nearest of equal ones is at either side.
    origin_ns = min(int(mine.start_ns.min()), int(other.start_ns.min()))
    span_ns = max(int(mine.start_ns.max()), int(other.start_ns.max())) - origin_ns + 1
    apart = (span_ns + 3 * _MOST_APART_NS) // 1_000  # in us, so that it fits
    keys = content.astype(np.int64) * apart
    theirs = keys[: len(other.index)] + (other.start_ns - origin_ns) // 1_000
    own = keys[len(other.index) :] + (mine.start_ns - origin_ns) // 1_000
    order = np.argsort(theirs, kind="stable")
    theirs = theirs[order]
    right = np.minimum(np.searchsorted(theirs, own), len(theirs) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(theirs[left] - own) <= np.abs(theirs[right] - own), left, right)
    is_near = np.abs(theirs[nearest] - own) <= _MOST_APART_NS // 1_000
    if not is_near.any():
        return None
    shifts = (other.media_sample[order[nearest]] - mine.media_sample)[is_near]
    kinds, which = np.unique(shifts, return_inverse=True)
    return int(kinds[np.bincount(which, weights=mine.size_bytes[is_near]).argmax()])


# --- the same sound -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A packet run to be decoded in part."""

    file: BinaryIO
    """The staged packets of its part; of its own."""
    pieces: Sequence[Piece]


def is_same_sound(one: Take, other: Take, first_unix_ns: int, stop_unix_ns: int) -> bool:
    """Tells whether two packet runs say the same from one moment to another.

    Both are decoded, and correlated at all lags up to 40 ms. Of speech that was encoded twice, at
    12 to 64 kbit/s, 0.85 or more was seen; of two voices, or one at two moments, at most 0.52 in
    0.2 s and 0.18 in a second. Each second has to be alike by itself, too, unless it is faint.
    """
    if not _LEAST_JUDGED_NS <= stop_unix_ns - first_unix_ns <= MOST_JUDGED_NS:
        return False
    try:
        x, y = (_sound_of(take, first_unix_ns, stop_unix_ns) for take in (one, other))
    except AudioDecodeError:
        return False
    x, y = x[_WARM_UP_SAMPLES:], y[_WARM_UP_SAMPLES:]
    # Two clocks are not known to a part of a sample at 8 kHz.
    return any(_are_alike(_at_8_khz(x), _at_8_khz(y[by:])) for by in range(_DECIMATION))


def _at_8_khz(sound: Pcm) -> Reals:
    mono = sound[: len(sound) // _DECIMATION * _DECIMATION].astype(np.float64)
    means: Reals = mono.reshape(-1, _DECIMATION).mean(axis=1)
    return means


def _are_alike(x: Reals, y: Reals) -> bool:
    powers = float(np.mean(x * x)), float(np.mean(y * y))
    if max(powers) < _SILENT:
        return True
    if min(powers) < _SILENT:
        return False
    size = 1 << (2 * len(x)).bit_length()
    product = np.fft.rfft(x, size) * np.conj(np.fft.rfft(y, size))
    correlation = np.fft.irfft(product, size)
    reach = _MOST_LAG_SAMPLES // _DECIMATION
    lags = np.concatenate([np.arange(reach + 1), np.arange(-reach, 0)])
    lag = int(lags[correlation[lags].argmax()])
    x, y = (x[lag:], y[: len(y) - lag]) if lag >= 0 else (x[: len(x) + lag], y[-lag:])
    x, y = x[: len(y)], y[: len(x)]
    if _likeness(x, y) < _LIKE:
        return False
    second = SAMPLE_RATE_HZ // _DECIMATION
    edges = [*range(0, max(1, len(x) - second // 2), second), len(x)]
    for first, stop in itertools.pairwise(edges):
        a, b = x[first:stop], y[first:stop]
        is_faint = (
            max(float(np.mean(a * a)) / powers[0], float(np.mean(b * b)) / powers[1]) < _FAINT
        )
        if not is_faint and _likeness(a, b) < _WINDOW_LIKE:
            return False
    return True


def _likeness(x: Reals, y: Reals) -> float:
    """Returns the correlation of two sounds, at most 1."""
    energy = float(np.sum(x * x)) * float(np.sum(y * y))
    return float(np.sum(x * y)) / energy**0.5 if energy > 0 else 0.0


def _sound_of(take: Take, first_unix_ns: int, stop_unix_ns: int) -> Pcm:
    """Returns what a packet run says between two moments, in mono; silence where it has no packets;
    shape (samples,).
    """
    samples = (stop_unix_ns - first_unix_ns) * SAMPLE_RATE_HZ // NS_PER_SECOND
    line = np.zeros((samples, 1), dtype=np.float32)
    for start_ns, pcm in _decoded(take, first_unix_ns - NS_PER_SECOND // 2, stop_unix_ns):
        at = round((start_ns - first_unix_ns) * SAMPLE_RATE_HZ / NS_PER_SECOND)
        part = pcm[max(0, -at) : max(0, samples - at)]
        line[max(0, at) : max(0, at) + len(part)] = part
    return line[:, 0]


def _decoded(take: Take, first_unix_ns: int, stop_unix_ns: int) -> Iterator[tuple[int, Pcm]]:
    """Yields each packet that begins between two moments as (server time, PCM)."""
    decoder = OpusDecoder(1)
    packet_run: StagedPacketRun = take.pieces[0].packet_run
    for window in read_packet_run(take.file, packet_run):
        media_sample = window.records["media_sample"].astype(np.int64)
        start_ns = server_times_ns(take.pieces, media_sample)
        size = window.records["packet_bytes"].astype(np.int64)
        place = np.cumsum(size) - size
        payload = window.payload.tobytes()
        for index in np.flatnonzero(
            (start_ns >= first_unix_ns) & (start_ns < stop_unix_ns)
        ).tolist():
            packet = payload[place[index] : place[index] + size[index]]
            pcm = decoder.decode(packet, int(window.records["duration_samples"][index]))
            if pcm is not None:
                yield int(start_ns[index]), pcm
        if start_ns[-1] >= stop_unix_ns:
            return
