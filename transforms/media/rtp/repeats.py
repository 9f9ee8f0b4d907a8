"""Packets of one source that have a number twice: the same packet again, or another one.

A sender that starts again with the same numbers, two senders that took the same SSRC, and an outage
of nearly 65,536 packets all give numbers that were there already. Taken for duplicates, what they
carry would be lost.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.rtp.passes import split_at_passes
from transforms.media.rtp.streams import JUMP_SAMPLES, Stream
from transforms.media.units import Bytes, Ints
from transforms.media.wraparound import unwrap_sequence

_LEAST_REPEATS = 3
"""Fewer packets with a number that was there are strays, no sender that counts anew."""
_AT_ONCE_PACKETS = 16
"""Two senders are at work at once where numbers repeat again so soon."""


def split_at_repeats(
    stream: Stream, mine: Ints, is_audio: npt.NDArray[np.bool_], dump: Bytes
) -> list[tuple[Ints, Ints]]:
    """Returns a source's packets, parted where it counts from the same number again.

    Args:
      stream: all packets.
      mine: places of the source's packets, in order of arrival.
      is_audio: of each packet of the stream.
      dump: the bytes that payloads are positions in.

    Returns:
      of each part the places of its packets, and which of them have the number of an earlier one
      and other content: too few to be a part of their own.
    """
    number = unwrap_sequence(stream.sequence_number[mine], 16)
    if int(np.diff(number).min(initial=1)) > 0:  # in order as they came, as nearly all are
        return [(mine, mine[:0])]
    return [
        part
        for each in split_at_passes(stream, mine, number, is_audio, dump)
        for part in _split_by_content(stream, each, is_audio, dump)
    ]


def _split_by_content(
    stream: Stream, mine: Ints, is_audio: npt.NDArray[np.bool_], dump: Bytes
) -> list[tuple[Ints, Ints]]:
    """Returns packets parted where numbers come again with other content, as `split_at_repeats`
    does.
    """
    found: list[tuple[Ints, Ints]] = []
    rest, (repeats, is_new) = mine, _repeats(stream, mine, is_audio, dump)
    while is_new:
        behind = rest[repeats[0] :]
        again, is_new = _repeats(stream, behind, is_audio, dump)
        if (is_new and again[0] < _AT_ONCE_PACKETS) or len(found) == caps.MAX_SEQUELS:
            return found + [
                (part, part[_repeats(stream, part, is_audio, dump)[0]])
                for part in _by_occurrence(stream, rest)
            ]
        found.append((rest[: repeats[0]], rest[:0]))
        rest, repeats = behind, again
    return [*found, (rest, rest[repeats])]


def _repeats(
    stream: Stream, mine: Ints, is_audio: npt.NDArray[np.bool_], dump: Bytes
) -> tuple[Ints, bool]:
    """Returns which of these packets, counted among them and rising, have the number of an earlier
    one with audio and are not the same packet; and whether they begin to count anew.
    """
    number = unwrap_sequence(stream.sequence_number[mine], 16)
    nothing = np.zeros(0, dtype=np.int64)
    if int(np.diff(number).min(initial=1)) > 0:  # in order as they came, as nearly all are
        return nothing, False
    audio = np.flatnonzero(is_audio[mine])
    order = audio[np.argsort(number[audio], kind="stable")]
    if not order.size:
        return nothing, False
    is_first = np.diff(number[order], prepend=number[order[0]] - 1) > 0
    first = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
    later, first = order[~is_first], first[~is_first]
    one, other = mine[first], mine[later]
    later_samples = (stream.rtp_timestamp[other] - stream.rtp_timestamp[one]).view(np.int32)
    differs = (later_samples != 0) | (stream.payload_bytes[one] != stream.payload_bytes[other])
    data = dump.data
    for index in np.flatnonzero(~differs).tolist():
        size = int(stream.payload_bytes[one[index]])
        a, b = int(stream.payload_offset[one[index]]), int(stream.payload_offset[other[index]])
        differs[index] = data[a : a + size] != data[b : b + size]
    # One that is seconds later is the same number of the next 65,536.
    is_next_lap = bool((later_samples > JUMP_SAMPLES).any())
    return np.sort(later[differs]), is_next_lap or int(differs.sum()) >= _LEAST_REPEATS


def _by_occurrence(stream: Stream, mine: Ints) -> list[Ints]:
    """Returns the packets that have their number for the first time, those that have it for the
    second time, and so on.
    """
    number = unwrap_sequence(stream.sequence_number[mine], 16)
    order = np.argsort(number, kind="stable")
    is_first = np.diff(number[order], prepend=number[order[0]] - 1) > 0
    place = np.arange(len(order))
    rank = np.zeros(len(order), dtype=np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(is_first, place, 0))
    rank = np.minimum(rank, caps.MAX_SEQUELS - 1)
    return [mine[rank == number] for number in range(int(rank.max()) + 1)]
