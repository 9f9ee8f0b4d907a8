"""What a hostile case is: a function that builds an archive, and what must be said about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileCase:
    """An archive, and what must become of it."""

    name: str
    """The archive's file name; tells what is wrong with it."""
    message: str | None
    """A pattern that the message of one failure matches; None where nothing is wrong after all."""
    intact: tuple[str, ...]
    """Participants whose audio must come out to the last packet."""
    make_archive: Callable[[str], bytes]
    """Gives the archive's bytes for the id of its call."""

    @property
    def call_id(self) -> str:
        """The id of the call in the archive: its file name up to the first dot."""
        return self.name.split(".")[0]

    @property
    def status(self) -> str:
        """The status of the archive's row in the catalog."""
        if self.message is None:
            return "ok"
        return "partial" if self.intact else "failed"

    def build(self) -> bytes:
        """Returns the archive's bytes."""
        return self.make_archive(self.call_id)


def hostile_case(
    message: str | None, *, ending: str = ".tar.gz", intact: tuple[str, ...] = ("alice", "bob")
) -> Callable[[Callable[[str], bytes]], HostileCase]:
    """Makes a case of a function that builds an archive for a call's id.

    Args:
      message: a pattern of the expected message; None where nothing is wrong after all.
      ending: of the archive's file name; the function's name stands before it.
      intact: participants whose audio must come out to the last packet.
    """

    def make_case(function: Callable[[str], bytes]) -> HostileCase:
        name = f"{function.__name__}{ending}"
        return HostileCase(name=name, message=message, intact=intact, make_archive=function)

    return make_case
