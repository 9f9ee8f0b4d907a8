"""Which recordings are asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from transforms.filters import Filters, is_glob
from transforms.media.errors import ConfigError
from transforms.media.rfc3339 import parse_time
from transforms.media.wall_time import utc_date

_AGE = re.compile(r"(\d{1,9})([mhd])", re.ASCII)
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAY_NS = 86_400 * 10**9
_EARLIEST_NS = -62_135_596_800 * 10**9
"""0001-01-01, before which no table has a time."""
_BEFORE_START = timedelta(days=1)
"""No media is so long before its call's `timeline_start_time`, by whose day rows are filed."""
_AFTER_START = timedelta(days=31)
"""Nor so long after it, with any `limits.max_call_hours` that somebody may have set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for; what is empty or None does not narrow."""

    call: str = ""
    """A cid, `type:id`, or a glob over cids."""
    takes_globs: bool = True
    """Whether it may be a glob: an id may have such characters, too."""
    since_unix_ns: int | None = None
    """Recordings that begin then or later."""
    until_unix_ns: int | None = None
    """Recordings that begin before."""
    recording_types: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    """Individual files of these participants; no mix is of one."""
    statuses: tuple[str, ...] = ()

    @property
    def names_call(self) -> bool:
        """Whether it is one call that is asked for."""
        return bool(self.call) and not (self.takes_globs and is_glob(self.call))

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for beside a call."""
        return self != Wanted(call=self.call, takes_globs=self.takes_globs)

    def may_be_of(self, call_date: str) -> bool:
        """Whether a wanted recording can have its row under a `call_date`."""
        try:
            day = date.fromisoformat(call_date)
            first, last = utc_date_of(self.since_unix_ns), utc_date_of(self.until_unix_ns)
            return not (
                (first is not None and day + _AFTER_START < first)
                or (last is not None and day - _BEFORE_START > last)
            )
        except (ValueError, OverflowError):  # no day of a calendar, or its very first or last
            return True

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of `recordings` is asked for: one that begins in time, and is of the call
        where one is named. All but its status is looked at.
        """
        return (
            (self.names_call or not self.call or _matches(self.call, row["call_cid"]))
            and (not self.recording_types or row["recording_type"] in self.recording_types)
            and (not self.participants or row["participant_id"] in self.participants)
        )


def _matches(call: str, cid: str) -> bool:
    return Filters(calls=(call,)).wants_cid(cid)


def utc_date_of(unix_ns: int | None) -> date | None:
    """Returns the day of a time; None for none."""
    return None if unix_ns is None else date.fromisoformat(utc_date(unix_ns))


def parse_bound(flag: str, text: str, now_unix_ns: int) -> int:
    """Returns a point in time as Unix ns: a day, a time (UTC unless it says otherwise), or an age
    such as 36h. A day is its beginning; behind `--until` its end, so that it is in.

    Raises:
      ConfigError: it is none of these.
    """
    if age := _AGE.fullmatch(text):
        return max(now_unix_ns - int(age[1]) * _SECONDS[age[2]] * 10**9, _EARLIEST_NS)
    found = parse_time(text)
    if found is None:
        raise ConfigError(
            f"{flag} {text}: expected a day such as 2026-11-20, a time such as "
            "2026-11-20T06:00:00Z, or an age such as 36h or 7d"
        )
    return found + _DAY_NS if flag == "--until" and _DAY.fullmatch(text) else found
