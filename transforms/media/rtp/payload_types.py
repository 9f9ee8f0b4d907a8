"""What the payload types of a dump mean, by its session description and by the metadata."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transforms.media.errors import RecordingError, SdpError, UnsupportedCodecError
from transforms.media.rtp.sdp import RtpMap
from transforms.media.rtp.streams import Stream
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.values import Codec

_COMFORT_NOISE = 13
_NO_AUDIO = frozenset(
    {
        "telephone-event",
        "tone",
        "rtx",
        "ulpfec",
        "flexfec",
        "flexfec-03",
        "parityfec",
        "rtploopback",
    }
)
"""Encoding names of payloads that hold no sound of their own (IANA's RTP payload formats)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadTypes:
    """What the payload types of a dump mean."""

    opus: tuple[int, ...] = ()
    red: tuple[int, ...] = ()
    comfort_noise: tuple[int, ...] = ()
    signalling: tuple[int, ...] = ()
    """Named by the session description as no audio."""
    has_none: bool = False
    """Whether no packet of the dump is of the track's own type, which a finding tells."""

    @property
    def audio(self) -> tuple[int, ...]:
        """Those that carry the track's sound."""
        return self.opus + self.red


def payload_types_of(
    rtp_maps: dict[int, RtpMap],
    stream: Stream,
    timing: SegmentTiming,
    member: str,
    findings: list[RecordingError],
) -> PayloadTypes:
    """Returns what the payload types of a dump mean.

    Args:
      rtp_maps: of the segment's session description; empty when it has none.
      stream: the dump's packets.
      timing: the segment as the metadata states it.
      member: the dump's name, for messages.
      findings: that no packet is of the track's own type is added to them.

    Raises:
      UnsupportedCodecError: none of them is Opus, or RED around it.
    """
    opus = [number for number, rtp_map in rtp_maps.items() if rtp_map.encoding == "opus"]
    red = [number for number, rtp_map in rtp_maps.items() if rtp_map.encoding == "red"]
    codec = timing.codec_type
    is_known = codec in tuple(Codec)
    if not rtp_maps and is_known and stream.payload_type.size:
        # Without a session description the metadata's codec speaks, for the payload type most
        # packets have.
        common = int(np.bincount(stream.payload_type).argmax())
        found = (common,)
        return PayloadTypes(opus=found) if codec == Codec.OPUS else PayloadTypes(red=found)
    if not opus and not red and (rtp_maps or not is_known):
        named = (
            ", ".join(f"{m.encoding}/{m.clock_rate_hz}" for m in rtp_maps.values())
            or timing.codec
            or "not named"
        )
        raise UnsupportedCodecError(
            f"{member}: codec is {named}, expected opus/48000 or red/48000", member=member
        )
    has_audio = np.isin(stream.payload_type, opus + red)
    has_none = bool(stream.payload_type.size and not has_audio.any())
    if has_none:
        there = sorted({int(number) for number in np.unique(stream.payload_type)})[:8]
        message = (
            f"{member}: payload types {there} in the dump, expected {sorted(opus + red)} by the "
            "session description"
        )
        findings.append(SdpError(message, member=member))
    noise = {number for number, rtp_map in rtp_maps.items() if rtp_map.encoding == "cn"}
    return PayloadTypes(
        opus=tuple(opus),
        red=tuple(red),
        # RFC 3551 s6: 13 is comfort noise unless a session description says otherwise.
        comfort_noise=tuple(noise | ({_COMFORT_NOISE} - rtp_maps.keys())),
        signalling=tuple(
            number for number, rtp_map in rtp_maps.items() if rtp_map.encoding in _NO_AUDIO
        ),
        has_none=has_none,
    )
