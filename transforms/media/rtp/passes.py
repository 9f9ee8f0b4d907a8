"""A sender that begins again with the same source, numbers and time stamps: told by arrivals.

Its second pass has numbers that the first one lost. Taken for late packets of the first, they would
lie as much too early as the first pass lasted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.rtp.streams import Stream
from transforms.media.units import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Bytes, Ints
from transforms.media.wraparound import unwrap_sequence

_LEAST_RISE_SAMPLES = SAMPLE_RATE_HZ
"""Networks hold single packets back for less."""
_REPEATED_SAMPLES = 10 * SAMPLE_RATE_HZ
"""Later than this no network sends again what it sent: who does is a sender."""
_LATE_MS = 2_000
"""So long before the last packet of a pass the first of the next one is looked for."""
_FIRST_PACKETS = 16
_LEAST_FALL = 12
"""A pass goes back by more numbers than packets overtake each other by."""
_LEAST_PACKETS = 3
"""Of the first packets of a pass so many go back; fewer are strays."""
_COMPARED_PACKETS = 1_000
_ALL_NUMBERS = 1 << 16


def split_at_passes(
    stream: Stream, mine: Ints, number: Ints, is_audio: npt.NDArray[np.bool_], dump: Bytes
) -> list[Ints]:
    """Returns a source's packets, parted where all that follow come later by their time stamps than
    any network holds packets back, and go back to what was sent before.

    Args:
      stream: all packets.
      mine: places of the source's packets, in order of arrival.
      number: their unwrapped sequence numbers.
      is_audio: of each packet of the stream.
      dump: the bytes that payloads are positions in.
    """
    if not stream.has_arrivals or int(np.diff(number).min(initial=0)) > -_LEAST_FALL:
        return [mine]
    ticks = unwrap_sequence(stream.rtp_timestamp[mine], 32)
    offset_ms = np.maximum.accumulate(stream.arrival_offset_ms[mine])
    late_samples = offset_ms * SAMPLES_PER_MS - ticks
    least_samples = np.minimum.accumulate(late_samples[::-1])[::-1]
    rises = np.diff(least_samples)
    highest_ticks = np.maximum.accumulate(ticks)
    goes_back = ticks[1:] <= highest_ticks[:-1]
    goes_back &= (number[1:] <= np.maximum.accumulate(number)[:-1]) | (
        number[1:] - number[0] >= _ALL_NUMBERS
    )
    begins = np.flatnonzero((rises >= _LEAST_RISE_SAMPLES) & goes_back) + 1
    if begins.size > caps.MAX_PACKET_RUNS:  # noise: not one by one
        largest = np.argsort(-rises[begins - 1], kind="stable")[: caps.MAX_PACKET_RUNS]
        begins = np.sort(begins[largest])
    if not begins.size:
        return [mine]
    is_begin = np.zeros(len(mine), dtype=np.int64)
    early: list[Ints] = []
    before = 0
    ends = [*begins[1:].tolist(), len(mine)]
    for begin, end in zip(begins.tolist(), ends, strict=True):
        first = slice(begin, min(end, begin + _FIRST_PACKETS))
        if np.count_nonzero(ticks[first] <= highest_ticks[begin - 1]) < _LEAST_PACKETS:
            continue
        rise_samples = int(rises[begin - 1])
        later = mine[begin:end]
        came, differing = _compare(stream, mine[before:begin], later, is_audio, dump)
        waited_samples = int(offset_ms[end - 1] - offset_ms[begin]) * SAMPLES_PER_MS
        # Packets that were held back come at once, those that came by two ways are the same.
        is_own_pace = 2 * waited_samples >= int(np.ptp(ticks[begin:end]))
        is_dense = 2 * len(later) > int(np.ptp(number[begin:end]))
        is_whole = int(number[first].min()) - int(number[before:begin].min()) <= _FIRST_PACKETS
        is_repeated = is_dense and (is_whole or rise_samples >= _REPEATED_SAMPLES)
        if not (
            0 < min(came, _LEAST_PACKETS) <= differing
            or (is_own_pace and (is_repeated or not came))
        ):
            continue
        # Late packets of the pass before came when this one had begun.
        start = max(before, int(np.searchsorted(offset_ms, offset_ms[begin] - _LATE_MS)))
        is_early = late_samples[start:begin] >= least_samples[begin] - rise_samples // 4
        early.append(start + np.flatnonzero(is_early))
        is_begin[begin] = 1
        before = begin
    if not early:
        return [mine]
    of_pass = np.cumsum(is_begin)
    for places in early:
        of_pass[places] += 1
    return [mine[of_pass == which] for which in range(int(of_pass[-1]) + 1)]


def _compare(
    stream: Stream, earlier: Ints, later: Ints, is_audio: npt.NDArray[np.bool_], dump: Bytes
) -> tuple[int, int]:
    """Returns how many of the later packets have number and time stamp of an earlier one, of those
    that were looked at, and how many of these have other content.
    """
    earlier, later = earlier[is_audio[earlier]], later[is_audio[later]]
    known, asked = _identity(stream, earlier), _identity(stream, later)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known, asked, sorter=order)
    place = order[np.minimum(place, len(order) - 1)] if order.size else place
    came = np.flatnonzero(known[place] == asked) if order.size else order
    came = came[:: 1 + len(came) // _COMPARED_PACKETS]
    differing = 0
    for one, other in zip(earlier[place[came]].tolist(), later[came].tolist(), strict=True):
        differing += _content(stream, one, dump) != _content(stream, other, dump)
    return len(came), differing


def _identity(stream: Stream, places: Ints) -> Ints:
    """Returns number and time stamp of packets as one integer of each."""
    return stream.rtp_timestamp[places].astype(np.int64) << 16 | stream.sequence_number[places]


def _content(stream: Stream, place: int, dump: Bytes) -> bytes:
    start = int(stream.payload_offset[place])
    return dump.data[start : start + int(stream.payload_bytes[place])].tobytes()
