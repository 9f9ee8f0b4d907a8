"""Wall time: ns since the Unix epoch, and what tables and partitions spell it as."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

_DAY_NS = 86_400 * 1_000_000_000


def utc_date(unix_ns: int) -> str:
    """Returns `YYYY-MM-DD`: the value of the `call_date` partition."""
    return _spell_day(unix_ns // _DAY_NS)


@functools.lru_cache(maxsize=10_000)
def _spell_day(day: int) -> str:
    """Returns a day since the epoch as a date; kept, as archives by the thousand are of one."""
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")


def to_time(unix_ns: int) -> datetime:
    """Returns an aware time with microseconds, as the tables hold it."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000)


def from_time(moment: datetime) -> int:
    """Returns the Unix ns of a table's time."""
    return (
        int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1_000
    )


def spell_time(unix_ns: int | None) -> str | None:
    """Returns an RFC 3339 time with milliseconds; None for one that no calendar has. Args: unix_ns:
    None for an unknown one.
    """
    if unix_ns is None:
        return None
    try:
        moment = to_time(unix_ns)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
