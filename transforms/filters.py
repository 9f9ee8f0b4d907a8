"""What part of the input a run is about."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.media.values import CallKey, OutputType, TrackKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What part of the input a run is about; empty tuples do not filter."""

    calls: tuple[str, ...] = ()
    """Call cids, `type:id`."""
    participants: tuple[str, ...] = ()
    user_sessions: tuple[str, ...] = ()
    output_types: tuple[OutputType, ...] = ()
    since_unix_ns: int | None = None

    @property
    def narrows_tracks(self) -> bool:
        """Whether only some files of a call are wanted: then no mix is made or replaced."""
        return bool(self.participants or self.user_sessions or self.output_types)

    def wants_call(self, call: CallKey) -> bool:
        return not self.calls or call.cid in self.calls

    def wants_track(self, track: TrackKey) -> bool:
        return (
            self.wants_call(track.call)
            and (not self.participants or track.participant_id in self.participants)
            and (not self.user_sessions or track.user_session_id in self.user_sessions)
            and (not self.output_types or track.output_type in self.output_types)
        )
