"""Reads times as RFC 3339 spells them, and the other spellings of ISO 8601 that Python knows."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_LEAP_SECOND = re.compile(r"(?<=[Tt ]\d\d:\d\d:)60", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


def parse_time(text: str) -> int | None:
    """Returns a time as Unix ns, None where it is none.

    `t` and `z` may be small (RFC 3339 s5.6), fractions of a second have any number of digits and
    count to the microsecond, which is what tables hold. Without an offset it is UTC. A leap second
    (s5.7) is the first one of the next day, as Unix time has it.
    """
    is_leap = _LEAP_SECOND.search(text) is not None
    try:
        moment = datetime.fromisoformat(_LEAP_SECOND.sub("59", text).upper())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    unix_us = (moment - _EPOCH) // _US
    if is_leap:
        unix_us += 1_000_000
        # Only the last minute of a day, in UTC, ever has one.
        if unix_us // 1_000_000 % 86_400:
            return None
    return unix_us * 1_000
