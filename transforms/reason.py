"""Why a run ended as it did, for programs."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a run has the exit status that it has; more may come."""

    OK = "ok"
    """Status 0: done, or there was nothing to do."""
    TOO_MANY_FAILED = "too_many_failed"
    REPRESS_NEEDED = "repress_needed"
    """So much would be pressed anew that `--repress` is asked for."""
    NOTHING_MATCHED = "nothing_matched"
    """No pattern matches anything, or a named call, participant, session or output type does
    not.
    """
    LOCK_HELD = "lock_held"
    """Another run is at work on the catalog."""
    LOCK_LOST = "lock_lost"
    STORAGE_DOWN = "storage_down"
    """A place cannot be listed, read or written."""
    ENGINE_DOWN = "engine_down"
    """The engine cannot be reached, or gave the job up by no fault of its steps."""
    EXHAUSTED = "exhausted"
    """This machine has no more memory, threads, processes or open files to give."""
    CANCELLED = "cancelled"
    """Ctrl-C or SIGTERM; or who read the output went away."""
    USAGE = "usage"
    """Wrong flags or configuration."""
    BUG = "bug"
    """Ours, or a broken installation."""
