"""Whether an archive that the catalog has as failed or partial is tried again: the rule by which
runs take it, and by which is told what is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.elements import Status
from transforms.media.wall_time import utc_date

LINK_EXPIRED = "LinkExpiredError"
"""With a newer link an archive opens, however often an old one did not."""
_RETRYABLE = ("StorageError", "CodecProcessError", LINK_EXPIRED)
ROW_COLUMNS = ("status", "attempts", "error_type", "created_at", "processed_at")
"""Of `archives`, by which the rule goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTry:
    """What another try at an unchanged archive would be."""

    attempt: int
    """Its number. Runs of one day are one try: whatever an operator does before noon, the morrow's
    run tries.
    """
    may_help: bool
    """Whether it may go better than the last one."""
    is_cause_passing: bool
    """Whether what went wrong lies outside the archive: in a store, a link, a codec process."""
    is_past_last: bool
    """Whether the archive was tried as often as it is to be."""

    @property
    def is_due(self) -> bool:
        """Whether a run makes it."""
        return self.may_help and not self.is_past_last


def next_try(row: Mapping[str, Any], at_unix_ns: int, most: int) -> NextTry:
    """Returns what another try would be.

    Args:
      row: of `archives`, with `ROW_COLUMNS`.
      at_unix_ns: when it would be made.
      most: `limits.max_attempts`.
    """
    tried_at = row["processed_at"] or row["created_at"]
    is_same_day = tried_at is not None and tried_at.date().isoformat() == utc_date(at_unix_ns)
    attempt = int(row["attempts"] or 1) + (not is_same_day)
    is_failed = row["status"] == Status.FAILED
    is_partial = row["status"] == Status.PARTIAL
    is_cause_passing = row["error_type"] in _RETRYABLE
    return NextTry(
        attempt=attempt,
        may_help=is_failed or (is_partial and is_cause_passing),
        is_cause_passing=is_cause_passing,
        is_past_last=attempt > most and row["error_type"] != LINK_EXPIRED,
    )
