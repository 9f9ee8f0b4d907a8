"""Archives of whole calls whose senders are simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.builders import make_archive, make_timing_metadata
from tests.support.simulation.sender import Sender
from tests.support.simulation.sending import Simulated, simulate


@dataclass(frozen=True, kw_only=True)
class Person:
    """A participant session."""

    name: str
    senders: Sequence[Sender]
    session: str | None = None
    """None for `sess-` and the name."""
    metadata_files: int = 1
    """Over how many files its metadata is split."""
    listed_twice: bool = False
    """Whether each segment is listed twice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedCall:
    """A call's archive, and who said what when."""

    archive: bytes
    people: Mapping[str, tuple[Simulated, ...]] = field(default_factory=dict)
    """By session."""


def simulate_call(people: Sequence[Person], *, kind: str = "tar", **metadata: Any) -> SimulatedCall:
    """Returns an archive of a call.

    Args:
      people: its participant sessions, in the order of the archive.
      kind: as `make_archive` has it.
      metadata: fields of the timing metadata that are not the defaults.
    """
    members: dict[str, bytes] = {}
    found: dict[str, tuple[Simulated, ...]] = {}
    for number, person in enumerate(people):
        session = person.session or f"sess-{person.name}"
        done = tuple(simulate(sender) for sender in person.senders)
        found[session] = (*found.get(session, ()), *done)
        listed = []
        for place, segment in enumerate(done):
            base = segment.sender.base_filename or f"{number}_{place}"
            members[f"{base}.rtpdump"] = segment.dump
            if segment.sender.with_sdp:
                members[f"{base}.sdp"] = segment.sdp
            entry = {
                "base_filename": base,
                "codec": "audio/red" if segment.sender.red_copies else "audio/opus",
                "track_id": f"{session}:audio",
                "track_type": "TRACK_TYPE_AUDIO",
                **segment.timing,
            }
            listed += [entry] * (2 if person.listed_twice else 1)
        for file in range(person.metadata_files):
            members[f"{number}_{file}_timing_metadata.json"] = make_timing_metadata(
                participant_id=person.name,
                user_session_id=session,
                segments={"audio": listed[file :: person.metadata_files], "video": []},
                **metadata,
            )
    return SimulatedCall(archive=make_archive(members, kind), people=found)
