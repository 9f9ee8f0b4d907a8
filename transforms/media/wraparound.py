"""Wrap-around arithmetic for sequence numbers and RTP time stamps (RFC 1982, RFC 3550 A.1).

Both count in fields of a fixed width, 16 and 32 bits, and begin at 0 again when these are full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transforms.media.units import Ints


def unwrap(wrapped: int, reference: int, bits: int) -> int:
    """Returns the number nearest to `reference` that equals `wrapped` modulo `2**bits`.

    Args:
      wrapped: the field as carried in the packet.
      reference: an unwrapped number less than `2**(bits - 1)` away.
      bits: 16 for sequence numbers, 32 for RTP timestamps.
    """
    half = 1 << (bits - 1)
    return reference + (wrapped - reference + half) % (1 << bits) - half


def unwrap_sequence(wrapped: npt.NDArray[np.integer], bits: int) -> Ints:
    """Returns the unwrapped numbers of a stream, each nearest to the one before it.

    Reordering is safe: a slightly older number moves back, it does not count as a wrap.

    Args:
      wrapped: fields in the order met, shape (packets,).
      bits: 16 or 32.
    """
    values = wrapped.astype(np.int64)
    if values.size == 0:
        return values
    half, mask = 1 << (bits - 1), (1 << bits) - 1
    steps = np.diff(values)  # worked on in place: a dump has millions
    steps += half
    steps &= mask
    steps -= half
    np.cumsum(steps, out=values[1:])
    values[1:] += values[0]
    return values
