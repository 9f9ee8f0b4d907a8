"""What lies in a dump's packets: Opus or RED around it, how long each lasts, what is broken.

The dump is looked at some MB at a time, so that it need not lie in memory whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.buffers import rows_at
from transforms.media.opus.packet import MAX_PACKET_SAMPLES, is_valid_packet, packet_samples
from transforms.media.rtp.encryption import Evidence, sent_samples
from transforms.media.rtp.fates import Fate, count_of, is_open, reopen, settle
from transforms.media.rtp.payload_types import PayloadTypes
from transforms.media.rtp.red import unwrap_red, without_received
from transforms.media.rtp.streams import Stream
from transforms.media.units import Bytes, Ints

_WINDOW_BYTES = 4 << 20
_MOST_OPUS_BYTES = 61_440
_PLAIN_BYTES = 1_276
_HEAD = np.dtype([("toc", "u1"), ("second", "u1")])


@dataclass(slots=True, kw_only=True)
class Payloads:
    """What a stream's packets hold; the arrays have shape (packets,)."""

    is_audio: npt.NDArray[np.bool_]
    """Whether it holds Opus with whole framing."""
    duration_samples: npt.NDArray[np.int32]
    """0 of what is no audio."""
    is_encrypted: npt.NDArray[np.bool_]
    """Whether it was encrypted end to end; it counts as audio, as long as its time stamps say."""
    bad_count: int = 0
    """Packets that should be Opus, and are not."""
    is_stereo: bool = False
    """Whether any is."""
    has_red: bool = False
    copies: dict[int, Ints] = field(default_factory=dict)
    """By SSRC, the redundant blocks that may be of use, as `unwrap_red` gives them."""


def look_at_payloads(
    stream: Stream,
    types: PayloadTypes,
    dump: Bytes,
    let_go: Callable[[], None],
) -> Payloads:
    """Returns what the packets of a stream hold; those that are RED become the Opus packets inside.

    Args:
      stream: its payloads are changed in place; what holds no audio gets its fate.
      types: where there is only RED every block of it is taken for Opus.
      dump: the bytes that payloads are positions in.
      let_go: called when a window of them has been looked at.
    """
    count = len(stream.ssrc)
    found = Payloads(
        is_audio=np.zeros(count, dtype=bool),
        duration_samples=np.zeros(count, dtype=np.int32),
        is_encrypted=np.zeros(count, dtype=bool),
    )
    evidence = Evidence(count)
    sent_as = (stream.payload_offset.copy(), stream.payload_bytes.copy()) if types.red else None
    is_red_type, is_audio_type = _is_one_of(types.red), _is_one_of(types.audio)
    is_block_type = _is_one_of(types.opus or range(128))
    is_noise_type, is_signal_type = _is_one_of(types.comfort_noise), _is_one_of(types.signalling)
    copies: list[Ints] = []
    room = caps.MAX_RED_COPIES
    for part in _windows(stream.payload_offset):
        is_audio = found.is_audio[part]  # a view
        kind, fates = stream.payload_type[part], stream.fates[part]
        settle(fates, stream.payload_bytes[part] == 0, Fate.PADDING)
        if not is_audio_type[kind].all():
            settle(fates, is_noise_type[kind], Fate.COMFORT_NOISE)
            settle(fates, is_signal_type[kind], Fate.SIGNALLING)
            settle(fates, ~is_audio_type[kind], Fate.FOREIGN)
        is_audio[:] = is_open(fates)
        evidence.look_at_ends(stream, np.flatnonzero(is_audio) + part.start, dump)
        is_red = is_red_type[kind]
        opus = np.flatnonzero(is_audio & ~is_red) + part.start
        more = None
        if is_red.any():
            found.has_red = True
            red = np.flatnonzero(is_red & is_audio) + part.start
            more = unwrap_red(stream, red, found.is_audio, is_block_type, dump)
            settle(fates, is_red & (stream.payload_bytes[part] == 0), Fate.PADDING)
            settle(fates, ~is_audio, Fate.FOREIGN)
        _look_at_opus(stream, part, found, dump)
        evidence.look_at_framing(stream, opus, found.is_audio, dump)
        if more is not None:
            more = without_received(more, stream, found.is_audio)[:room]
            room -= len(more)
            more[:, 4], _ = _measure(more[:, 1], more[:, 2], dump)
            copies.append(more[more[:, 4] > 0])
        let_go()
    sent_bytes = stream.payload_bytes if sent_as is None else sent_as[1]
    is_audio_packet = is_audio_type[stream.payload_type] & (sent_bytes > 0)
    found.is_encrypted = evidence.find_encrypted(stream, is_audio_packet)
    encrypted = np.flatnonzero(found.is_encrypted)
    if encrypted.size:
        _take_as_sent(stream, encrypted, found, sent_as)
    found.bad_count = count_of(stream.fates, Fate.INVALID)
    if copies:
        every = np.concatenate(copies)
        every = every[~found.is_encrypted[every[:, 3]]]
        sources = stream.ssrc[every[:, 3]]
        found.copies = {int(ssrc): every[sources == ssrc] for ssrc in np.unique(sources)}
    return found


def _is_one_of(types: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Returns, of each payload type, whether it is one of these."""
    table = np.zeros(128, dtype=bool)
    table[list(types)] = True
    return table


def _windows(payload_offset: Ints) -> Iterator[slice]:
    """Yields the packets of some MB of the dump at a time."""
    if not payload_offset.size:
        return
    edges = np.arange(
        int(payload_offset[0]), int(payload_offset[-1]) + _WINDOW_BYTES, _WINDOW_BYTES
    )
    for first, stop in itertools.pairwise(
        [*np.searchsorted(payload_offset, edges).tolist(), len(payload_offset)]
    ):
        if first < stop:
            yield slice(first, stop)


def _take_as_sent(
    stream: Stream,
    encrypted: Ints,
    found: Payloads,
    sent_as: tuple[Ints, npt.NDArray[np.int32]] | None,
) -> None:
    """Takes encrypted packets for audio, whole.

    Args:
      stream: its payloads are changed in place.
      encrypted: places of these packets.
      found: changed in place.
      sent_as: where payloads lie and how large they are, RED around them; None when none has any.
    """
    found.is_audio[encrypted] = True
    reopen(stream.fates, encrypted)
    found.duration_samples[encrypted] = sent_samples(stream, encrypted)
    if sent_as is not None:
        stream.payload_offset[encrypted] = sent_as[0][encrypted]
        stream.payload_bytes[encrypted] = sent_as[1][encrypted]


def _look_at_opus(stream: Stream, part: slice, found: Payloads, dump: Bytes) -> None:
    """Measures the Opus packets among some, and takes out those whose framing is broken."""
    at = np.flatnonzero(found.is_audio[part]) + part.start
    duration, is_stereo = _measure(stream.payload_offset[at], stream.payload_bytes[at], dump)
    is_whole = duration > 0
    found.is_audio[at[~is_whole]] = False
    settle(stream.fates, at[~is_whole], Fate.INVALID)
    found.is_stereo = found.is_stereo or bool((is_whole & is_stereo).any())
    found.duration_samples[at] = duration


def _measure(
    start: Ints, size: npt.NDArray[np.integer[Any]], dump: Bytes
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Returns how long Opus packets last, 0 where their framing is broken, and which are stereo."""
    heads = rows_at(dump, start, _HEAD)
    toc = heads["toc"].copy()
    duration = packet_samples(toc, np.where(size > 1, heads["second"], np.uint8(0)))
    duration[(duration > MAX_PACKET_SAMPLES) | (size > _MOST_OPUS_BYTES)] = 0
    # Code 0 is whole by itself, and nearly all there is; the other codes carry lengths that may
    # lie.
    for index in np.flatnonzero(
        (duration > 0) & (((toc & 3) != 0) | (size > _PLAIN_BYTES))
    ).tolist():
        if not is_valid_packet(dump[start[index] : start[index] + size[index]].tobytes()):
            duration[index] = 0
    return duration, (toc & 4) != 0
