"""Parses the part of a session description (RFC 8866) that says what payload types mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transforms.media.errors import SdpError

# Some writers put parameters, which belong into `a=fmtp`, behind the encoding.
_RTPMAP = re.compile(
    r"^a=rtpmap:\s*(\d{1,3})\s+(?:audio/)?([^/\s;]{1,64})(?:\s*;[^/]*)?/(\d{1,6})(?:/(\d{1,3}))?\s*(?:;.*)?$",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpMap:
    """One `a=rtpmap` line: what a payload type means (RFC 8866 s6.6)."""

    payload_type: int
    encoding: str
    """Encoding name in lower case, e.g. `opus` or `red`."""
    clock_rate_hz: int
    channels: int


def parse_sdp(text: bytes, member: str) -> dict[int, RtpMap]:
    """Returns the payload types a session description maps, by number.

    Args:
      text: the member's bytes; lines end in LF or CRLF.
      member: its name, for messages.

    Raises:
      SdpError: it is not text, or maps no payload type.
    """
    try:
        lines = text.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise SdpError(
            f"{member}: byte {error.start} is not UTF-8, expected a session description",
            member=member,
            byte_offset=error.start,
        ) from None
    maps: dict[int, RtpMap] = {}
    for line in lines:
        found = _RTPMAP.match(line.strip())
        if found and int(found[1]) <= 127:
            payload_type = int(found[1])
            maps[payload_type] = RtpMap(
                payload_type=payload_type,
                encoding=found[2].lower(),
                clock_rate_hz=int(found[3]),
                channels=int(found[4] or 1),
            )
    if not maps:
        raise SdpError(
            f"{member}: no a=rtpmap line, expected one such as a=rtpmap:111 opus/48000/2",
            member=member,
        )
    return maps
