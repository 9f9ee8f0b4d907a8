"""What can be wrong with a catalog, as it is told to whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.elements import Row
from transforms.media.values import CallKey

PRESS_CALL = "`callpress verify --repair` notes its call, and the next run presses it anew"
PRESS_ARCHIVE = "`callpress run` over the archive"
PRESS_AGAIN = "`callpress run --overwrite` over the archive"
BY_HAND = "take the wrong rows out by hand; a run replaces only those under the right date"
ADD_ROWS = "the next run that adds rows to the object keeps that which is further"
REMOVE = "remove it"
RESTORE = "restore it from a copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it should be."""

    uri: str
    what: str
    heal: str
    """What makes it right again."""
    call: CallKey | None = None
    """The call to be pressed anew; None where that would not help."""
    call_date: str = ""
    """Where the rows of `call` are."""


def call_of(row: Row) -> CallKey | None:
    """Returns the call that a row is of; None when it is of none."""
    if row.get("call_session_id") is None:
        return None
    return CallKey(
        call_type=row["call_type"] or "",
        call_id=row["call_id"] or "",
        call_session_id=row["call_session_id"],
    )


def describe(row: Row) -> str:
    """Returns the names of what a row is about, less those that are null."""
    return ", ".join(f"{name} {value!r}" for name, value in row.items() if value is not None)
