"""What a manifest says of one recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """One raw recording that a manifest names."""

    uri: str
    """What the archive is known by: of a link scheme, host and path; else the full URI or absolute
    path.
    """
    link: str = field(default="", repr=False)
    """The link with its signature; empty where the URI itself opens it. It stands in no message,
    row, log or file name.
    """
    call_cid: str = ""
    """`type:id`; empty where the manifest does not say."""
    call_session_id: str = ""
    ended_unix_ns: int | None = None
    """When the recording ended; None where the manifest does not say."""
    issued_unix_ns: int | None = None
    """When the manifest, or its event, was made; of links to one archive the newest is taken. None
    where it does not say: then a link's own expiry tells.
    """


class LeftOut(StrEnum):
    """Why an entry of a manifest is passed over, and counted."""

    COMPOSITE = "composite"
    INDIVIDUAL = "individual"
    OTHER_EVENT = "other_event"
    """An event other than `call.recording_ready`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEntry:
    """An entry that cannot be read, among others that can."""

    manifest: str
    """As it is shown: without a signature."""
    position: str
    """`line 12`, `recordings[3]`, or the like."""
    why: str
