"""What part of the input a run is about."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from transforms.media.errors import ConfigError
from transforms.media.values import CallKey, OutputType, TrackKey

Named = tuple[str, str]
"""A flag, and one of its values."""
CALL_FLAG = "--call"
EXCLUDED_CALL_FLAG = "--exclude-call"
_EXCLUDED_PARTICIPANT_FLAG = "--exclude-participant"
_GLOB = re.compile(r"[*?]|\[!?+\]?+[^\]]*+\]")  # as `fnmatch` takes them
_AGE = re.compile(r"^(\d+)([mhd])$")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_NS_PER_SECOND = 1_000_000_000  # that of `media.units` costs the command numpy


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackNames:
    """What a track, or a session that sent nothing, can be asked for by; None for no name."""

    call_cid: str
    participant_id: str | None = None
    user_session_id: str | None = None
    output_type: str | None = None
    track_ids: tuple[str, ...] = ()
    """The vendor's published tracks that are in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What part of the input a run is about; empty tuples do not filter.

    A track is wanted when it has one of the values of each kind that is given, and none that is
    excluded: what is excluded is out, whatever else asks for it. Kinds that narrow tracks
    (participants, sessions, published tracks, output types) make no mix and leave archives undone.
    """

    calls: tuple[str, ...] = ()
    """Call cids, `type:id`, or globs over them: `*` for any characters, `?` for one, `[...]` for
    one of some. Case counts. A cid that has such characters is matched by itself, too.
    """
    excluded_calls: tuple[str, ...] = ()
    """The same, of calls that are left out whole."""
    participants: tuple[str, ...] = ()
    excluded_participants: tuple[str, ...] = ()
    user_sessions: tuple[str, ...] = ()
    track_ids: tuple[str, ...] = ()
    """Published tracks: the individual files that hold one are wanted, whole."""
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
        return bool(
            self.participants
            or self.excluded_participants
            or self.user_sessions
            or self.track_ids
            or self.output_types
        )

    @property
    def is_about_a_part(self) -> bool:
        """Whether calls or people are picked out: such a run is not about the night, as one is that
        leaves some calls out.
        """
        return bool(self.calls) or self.narrows_tracks

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """The values that were given by name, of each flag that has any."""
        found: dict[str, tuple[str, ...]] = {
            CALL_FLAG: self.calls,
            EXCLUDED_CALL_FLAG: self.excluded_calls,
            "--participant": self.participants,
            _EXCLUDED_PARTICIPANT_FLAG: self.excluded_participants,
            "--user-session": self.user_sessions,
            "--track-id": self.track_ids,
            "--output-type": tuple(str(kind) for kind in self.output_types),
        }
        return {flag: values for flag, values in found.items() if values}

    @property
    def all_named(self) -> frozenset[Named]:
        """The same as pairs."""
        return frozenset((flag, value) for flag, values in self.named.items() for value in values)

    def must_be_there(self, missing: Collection[Named]) -> list[Named]:
        """Returns of what was given by name and is nowhere that which is somebody's mistake, in
        order.

        A glob may find nothing, and nobody is harmed where what is left out is not there. Nor is it
        a mistake that people are not there where globs find no call they could be in.

        Args:
          missing: all that is nowhere.
        """
        is_quiet = bool(self.calls) and all(
            is_glob(call) and (CALL_FLAG, call) in missing for call in self.calls
        )
        excluding = (EXCLUDED_CALL_FLAG, _EXCLUDED_PARTICIPANT_FLAG)
        return [
            (flag, value)
            for flag, value in sorted(missing)
            if not (is_quiet or flag in excluding or (flag == CALL_FLAG and is_glob(value)))
        ]

    def names_of(self, track: TrackNames) -> frozenset[Named]:
        """Returns the names of a track that could have been given within the calls that are
        wanted, each with the others that were.

        A session in which nothing was sent has no output type: people are looked for without one.
        """
        if not self.wants_cid(track.call_cid):
            return frozenset()
        is_participant = not self.participants or track.participant_id in self.participants
        is_session = not self.user_sessions or track.user_session_id in self.user_sessions
        is_type = not self.output_types or track.output_type in self.output_types
        is_person = is_participant and is_session
        found = (
            ("--participant", track.participant_id, is_session),
            (_EXCLUDED_PARTICIPANT_FLAG, track.participant_id, True),
            ("--user-session", track.user_session_id, is_participant),
            ("--output-type", track.output_type, is_person),
            *(("--track-id", track_id, is_person and is_type) for track_id in track.track_ids),
        )
        return frozenset(
            (flag, str(name)) for flag, name, fits in found if fits and name is not None
        )

    def matched_by(self, track: TrackNames) -> frozenset[Named]:
        """Returns what a track, with its call, has of all that was given by name: a participant,
        say, counts only in a call that is wanted.
        """
        named = self.names_of(track) & self.all_named
        return named | self.matched_by_call(track.call_cid)

    def matched_by_call(self, cid: str) -> frozenset[Named]:
        """Returns which of the calls that were given by name one is."""
        given = ((CALL_FLAG, self.calls), (EXCLUDED_CALL_FLAG, self.excluded_calls))
        return frozenset(
            (flag, value) for flag, values in given for value in values if _matches(value, cid)
        )

    def wants_cid(self, cid: str) -> bool:
        """Whether the run is about a call of this `type:id`."""
        is_in = not self.calls or any(_matches(value, cid) for value in self.calls)
        return is_in and not any(_matches(value, cid) for value in self.excluded_calls)

    def wants_call(self, call: CallKey) -> bool:
        return self.wants_cid(call.cid)

    def wants_track(self, track: TrackKey, track_ids: Collection[str]) -> bool:
        """Args: track_ids: the published tracks that are in it, in any of its archives."""
        return (
            self.wants_call(track.call)
            and (not self.participants or track.participant_id in self.participants)
            and track.participant_id not in self.excluded_participants
            and (not self.user_sessions or track.user_session_id in self.user_sessions)
            and (not self.track_ids or not set(track_ids).isdisjoint(self.track_ids))
            and (not self.output_types or track.output_type in self.output_types)
        )


def is_glob(value: str) -> bool:
    """Whether a value that stands for calls may match others than the one it spells."""
    return _GLOB.search(value) is not None


def _matches(value: str, cid: str) -> bool:
    return value == cid or (is_glob(value) and fnmatchcase(cid, value))


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
