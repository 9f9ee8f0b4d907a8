"""What part of the input a run is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from transforms.media.errors import ConfigError
from transforms.media.values import CallKey, OutputType, TrackKey

Named = tuple[str, str]
"""A flag, and one of its values."""
CALL_FLAG = "--call"
_AGE = re.compile(r"^(\d+)([mhd])$")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_NS_PER_SECOND = 1_000_000_000  # that of `media.units` costs the command numpy


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What part of the input a run is about; empty tuples do not filter."""

    calls: tuple[str, ...] = ()
    """Call cids, `type:id`."""
    excluded_calls: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    excluded_participants: tuple[str, ...] = ()
    user_sessions: tuple[str, ...] = ()
    track_ids: tuple[str, ...] = ()
    output_types: tuple[OutputType, ...] = ()
    since: str = ""
    """Only archives modified after this: a date or a time (UTC unless it says otherwise), or an age
    such as 36h, counted from when the run begins.
    """

    def since_unix_ns(self, started_unix_ns: int) -> int | None:
        """Returns what `since` is for a run. Raises: ConfigError: it is no point in time."""
        return parse_since(self.since, started_unix_ns) if self.since else None

    @property
    def narrows_tracks(self) -> bool:
        """Whether only some files of a call are wanted: then no mix is made or replaced."""
        return bool(self.participants or self.user_sessions or self.output_types)

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """The values that were asked for by name, of each flag that has any."""
        found: dict[str, tuple[str, ...]] = {
            CALL_FLAG: self.calls,
            "--participant": self.participants,
            "--user-session": self.user_sessions,
            "--output-type": tuple(str(kind) for kind in self.output_types),
        }
        return {flag: values for flag, values in found.items() if values}

    @property
    def all_named(self) -> frozenset[Named]:
        """The same as pairs."""
        return frozenset((flag, value) for flag, values in self.named.items() for value in values)

    def names_of(
        self,
        call_cid: str,
        participant_id: str | None,
        user_session_id: str | None,
        output_type: str | None,
    ) -> tuple[Named, ...]:
        """Returns the names of a track that could have been asked for within the calls that are
        wanted; None for what it has no name for.
        """
        if self.calls and call_cid not in self.calls:
            return ()
        found = (
            (CALL_FLAG, call_cid),
            ("--participant", participant_id),
            ("--user-session", user_session_id),
            ("--output-type", output_type),
        )
        return tuple((flag, str(name)) for flag, name in found if name is not None)

    def matched_by(
        self,
        call_cid: str,
        participant_id: str | None,
        user_session_id: str | None,
        output_type: str | None,
    ) -> frozenset[Named]:
        """Returns what a track has of all that was asked for by name: a participant, say, counts
        only in a call that is wanted. A session in which nothing was sent has no output type.
        """
        names = self.names_of(call_cid, participant_id, user_session_id, output_type)
        matched = {name for name in names if name in self.all_named}
        is_person = (not self.participants or participant_id in self.participants) and (
            not self.user_sessions or user_session_id in self.user_sessions
        )
        return frozenset(name for name in matched if is_person or name[0] == CALL_FLAG)

    def wants_call(self, call: CallKey) -> bool:
        return not self.calls or call.cid in self.calls

    def wants_track(self, track: TrackKey) -> bool:
        return (
            self.wants_call(track.call)
            and (not self.participants or track.participant_id in self.participants)
            and (not self.user_sessions or track.user_session_id in self.user_sessions)
            and (not self.output_types or track.output_type in self.output_types)
        )


def parse_since(text: str, now_unix_ns: int) -> int:
    """Returns a point in time as Unix ns: a date or time (UTC unless it says otherwise), or an age
    such as 36h.

    Raises:
      ConfigError: neither.
    """
    now = datetime.fromtimestamp(now_unix_ns // _NS_PER_SECOND, UTC)
    age = _AGE.match(text)
    if age:
        try:
            moment = now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        except OverflowError:
            raise ConfigError(
                f"--since {text}: before the calendar begins, expected an age such as 36h or 7d"
            ) from None
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(
                f"--since {text}: expected a date such as 2026-11-20, or an age such as 36h or 7d"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * _NS_PER_SECOND
