"""Encrypts the audio of a dump end to end, as senders do between encoder and RTP packet.

What comes of a cipher looks drawn: here it is drawn, from a generator whose seed is the packet's
number, so that a packet sent twice is the same twice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tests.support.builders import OPUS_PAYLOAD_TYPE, RED_PAYLOAD_TYPE

_HEADER_BYTES = 12
_RECORD_BYTES = 8


class Sent(NamedTuple):
    """A frame that is to be encrypted, and the packet it goes into."""

    number: int
    """Counted from the first packet of the dump, by sequence number."""
    rtp_timestamp: int
    ssrc: int
    frame: bytes


Scheme = Callable[[Sent], bytes]


def _drawn(sent: Sent, count: int) -> bytes:
    return np.random.default_rng([sent.number, 7]).bytes(count)


def sframe(
    key_id: int = 0,
    first_counter: int = 0,
    counts_per_packet: int = 1,
    tag_bytes: int = 10,
) -> Scheme:
    """Returns SFrame (RFC 9605 s4.3).

    Args:
      key_id: up to 7 it stands in the first byte.
      first_counter: of the first packet.
      counts_per_packet: more than 1 where frames of video are counted along.
      tag_bytes: of authentication; 4, 8, 10 or 16.
    """

    def encrypt(sent: Sent) -> bytes:
        counter = first_counter + counts_per_packet * sent.number
        first, fields = 0, b""
        for value, shift in ((key_id, 4), (counter, 0)):
            if value < 8:
                first |= value << shift
            else:
                size = (value.bit_length() + 7) // 8
                first |= (8 | size - 1) << shift
                fields += value.to_bytes(size, "big")
        return bytes([first]) + fields + _drawn(sent, len(sent.frame) + tag_bytes)

    return encrypt


def trailed(clear_bytes: int = 1, timestamp_offset: int = 0) -> Scheme:
    """Returns what LiveKit and Jitsi do: the TOC byte in the clear; behind the ciphertext its tag,
    the initialisation vector (SSRC, time stamp, a count), its length and the key's index.

    Args:
      clear_bytes: that are not encrypted.
      timestamp_offset: by which the encoder's time stamps differ from the packets'.
    """

    def encrypt(sent: Sent) -> bytes:
        timestamp = (sent.rtp_timestamp + timestamp_offset) % (1 << 32)
        vector = struct.pack(
            ">III", sent.ssrc, timestamp, (timestamp - sent.number % 0xFFFF) % (1 << 32)
        )
        size = len(sent.frame) - clear_bytes + 16
        return sent.frame[:clear_bytes] + _drawn(sent, size) + vector + b"\x0c\x00"

    return encrypt


def example() -> Scheme:
    """Returns what WebRTC's own example does: the TOC byte in the clear, key index, 0xDEADBEEF."""
    return lambda sent: (
        sent.frame[:1] + _drawn(sent, len(sent.frame) + 15) + b"\0" + 0xDEADBEEF.to_bytes(4, "big")
    )


def whole() -> Scheme:
    """Returns ciphertext from the first byte on, as Discord's DAVE sends it."""
    return lambda sent: _drawn(sent, len(sent.frame) + 8) + b"\x01\x00\x0c\xfa\xfa"


def behind_byte(first: int) -> Scheme:
    """Returns ciphertext behind one byte that is always the same."""
    return lambda sent: bytes([first]) + _drawn(sent, len(sent.frame) + 16)


def toc_in_the_clear() -> Scheme:
    """Returns ciphertext behind the TOC byte, and nothing that marks it."""
    return lambda sent: sent.frame[:1] + _drawn(sent, len(sent.frame) - 1)


def encrypt_dump(dump: bytes, scheme: Scheme, first: int = 0, stop: int = 1 << 62) -> bytes:
    """Returns a dump with the audio of its packets encrypted, from one number to another."""
    at = dump.index(b"\n") + 17
    out = [dump[:at]]
    origin = None
    while at < len(dump):
        length, sent_bytes, offset_ms = struct.unpack_from(">HHI", dump, at)
        packet = dump[at + _RECORD_BYTES : at + length]
        at += length
        is_plain = sent_bytes and len(packet) > _HEADER_BYTES and packet[0] == 0x80
        if is_plain and packet[1] & 0x7F in (OPUS_PAYLOAD_TYPE, RED_PAYLOAD_TYPE):
            sequence_number, timestamp, ssrc = struct.unpack_from(">HII", packet, 2)
            origin = sequence_number if origin is None else origin
            number = (sequence_number - origin) % (1 << 16)
            if first <= number < stop:
                frame = packet[_HEADER_BYTES:]
                packet = packet[:_HEADER_BYTES] + scheme(Sent(number, timestamp, ssrc, frame))
        size = len(packet)
        out.append(struct.pack(">HHI", size + _RECORD_BYTES, size if sent_bytes else 0, offset_ms))
        out.append(packet)
    return b"".join(out)
