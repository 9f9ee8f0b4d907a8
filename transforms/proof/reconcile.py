"""What became of each recording that a listing names, by a catalog: pressed, partly pressed,
failed, waiting, or absent; and which of them are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from transforms.context import is_older
from transforms.elements import Row, Status
from transforms.media.text import without_secrets
from transforms.media.wall_time import spell_time
from transforms.proof.archive_rows import ArchiveRows, CatalogArchiveRows
from transforms.proof.listing import ListedRecording, Listing
from transforms.proof.matching import Match, MatchedBy, match
from transforms.tries import LINK_EXPIRED, NextTry, next_try

_HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * _HOUR_NS
GRACE_NS = 6 * _HOUR_NS
KEPT_NS = 14 * DAY_NS
"""How long the vendor keeps a recording, by its page on raw recording."""
SOON_NS = 3 * DAY_NS
_BY_NAME_ALONE = "found by the name of its file alone, of which no call session is known"
_NOTHING_OF_IT = (
    "the catalog has nothing of this listing: it may be that of other calls, or the listing that "
    "of another catalog"
)


class State(StrEnum):
    """What became of a recording; docs/reconcile.md defines the words."""

    PRESSED = "pressed"
    PARTIAL = "partial"
    FAILED = "failed"
    WAITING = "waiting"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """When it is asked, and from when on what is not pressed is missing."""

    now_unix_ns: int
    max_attempts: int
    """`limits.max_attempts` of the runs over the catalog."""
    grace_ns: int = GRACE_NS
    """What ended less than this ago may still be waiting, or absent."""
    kept_ns: int = KEPT_NS
    """How long the vendor keeps a recording after its end."""
    soon_ns: int = SOON_NS
    """What the vendor deletes within this, and is not pressed, is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What became of a recording."""

    uri: str
    """As the listing knows it, without a signature."""
    call_cid: str
    call_session_id: str
    """Empty where the listing does not say; so is `call_cid`."""
    state: State
    is_missing: bool
    """Whether somebody is to look at it."""
    why: str
    """Why it is not pressed; empty where it is."""
    remedy: str
    """What to do; empty where it is pressed."""
    archive_uri: str | None
    """Of its row in `archives`; None where it is absent."""
    matched_by: MatchedBy | None
    ended_unix_ns: int | None
    """When it ended, else when its event was made; None where the listing says neither."""
    deleted_unix_ns: int | None
    """When the vendor deletes it, or did; None where that is not known."""
    copy_uri: str | None
    """Of the copy that the catalog knows; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What became of all recordings of a listing, in its order."""

    recordings: tuple[ListedRecording, ...]
    matches: Mapping[str, Match]
    """By the URI of a recording."""
    terms: Terms
    notes: tuple[str, ...] = ()
    """What is to be known of all of it: what the catalog cannot tell, for one."""

    def __iter__(self) -> Iterator[Reconciled]:
        for recording in self.recordings:
            yield _judge(recording, self.matches.get(recording.uri), self.terms)


def reconcile(listing: Listing, catalog_uri: str, terms: Terms) -> Reconciliation:
    """Returns what became of the recordings of a listing.

    Memory grows with the listing, not with the catalog.

    Raises:
      StorageError: the catalog's table of archives cannot be read.
    """
    rows = CatalogArchiveRows(catalog_uri)
    found = reconcile_rows(listing, rows, terms)
    if rows:
        return found
    note = "the catalog has no table archives: what was pressed is not known"
    return replace(found, notes=(note,))


def reconcile_rows(listing: Listing, rows: ArchiveRows, terms: Terms) -> Reconciliation:
    """Returns what became of the recordings of a listing, by rows. Raises: as `reconcile`."""
    matches = match(listing.recordings, rows)
    notes = (_NOTHING_OF_IT,) if listing.recordings and not matches else ()
    return Reconciliation(recordings=listing.recordings, matches=matches, terms=terms, notes=notes)


def count(found: Iterable[Reconciled]) -> dict[str, int]:
    """Returns how many recordings there are of each state, and how many are missing."""
    counts = {**dict.fromkeys(map(str, State), 0), "missing": 0}
    for each in found:
        counts[each.state] += 1
        counts["missing"] += each.is_missing
    return counts


def _judge(recording: ListedRecording, found: Match | None, terms: Terms) -> Reconciled:
    row = found.row if found else None
    copy_uri = (row["copy_uri"] or None) if row else None
    ended = recording.ended_unix_ns
    deleted = None if ended is None else ended + terms.kept_ns
    state, why, remedy = _state_of(recording, row, terms)
    if deleted is not None and deleted <= terms.now_unix_ns and remedy and not copy_uri:
        remedy = "the vendor has deleted it by now: ask whether they still have it"
    return Reconciled(
        uri=recording.uri,
        call_cid=recording.call_cid,
        call_session_id=recording.call_session_id,
        state=state,
        is_missing=_is_missing(
            # One that may be of another recording excuses nothing.
            state if found is None or found.is_certain else State.ABSENT,
            *(ended, deleted, copy_uri, terms),
        ),
        why=why if found is None or found.is_certain else f"{why} ({_BY_NAME_ALONE})",
        remedy=remedy,
        archive_uri=row["archive_uri"] if row else None,
        matched_by=found.by if found else None,
        ended_unix_ns=ended,
        deleted_unix_ns=deleted,
        copy_uri=copy_uri,
    )


def _is_missing(
    state: State, ended: int | None, deleted: int | None, copy_uri: str | None, terms: Terms
) -> bool:
    if state is State.PRESSED:
        return False
    # An end that is far ahead is somebody's mistake, and excuses nothing.
    is_fresh = ended is not None and abs(terms.now_unix_ns - ended) < terms.grace_ns
    if is_fresh and state in (State.WAITING, State.ABSENT):
        return False
    if state in (State.ABSENT, State.FAILED):
        return True
    is_soon = deleted is not None and deleted - terms.now_unix_ns <= terms.soon_ns
    return is_soon and copy_uri is None


_NEWER_LISTING = "ask the vendor for a newer listing, and run over that"


def _state_of(recording: ListedRecording, row: Row | None, terms: Terms) -> tuple[State, str, str]:
    """Returns what became of a recording, why, and what to do."""
    expires = recording.expires_unix_ns
    is_expired = expires is not None and expires <= terms.now_unix_ns
    expired = f"its link in the listing expired at {spell_time(expires)}"
    if row is None:
        why = "the catalog has nothing of it"
        if is_expired:
            return State.ABSENT, f"{why}, and {expired}", _NEWER_LISTING
        return State.ABSENT, why, "run over this listing"
    is_lost = is_expired and not row["copy_uri"]  # for a run over this listing
    status = row["status"]
    if status in (Status.OK, Status.EMPTY):
        return State.PRESSED, "", ""
    if status == Status.WAITING:
        why = "a run with a bound left it to the next one"
        if is_lost:
            return State.WAITING, f"{why}, but {expired}", _NEWER_LISTING
        return State.WAITING, why, "the next run over this listing begins with it"
    if status not in (Status.FAILED, Status.PARTIAL):
        why = f"the catalog has it as {status!r}, which this version does not know"
        return State.FAILED, why, "reconcile with the version that wrote the catalog"
    why = _failed(row)
    # The morrow's, as runs of one day are one try: what is left then is left.
    another = next_try(row, terms.now_unix_ns + DAY_NS, terms.max_attempts)
    if another.is_due and is_lost:
        state = State.PARTIAL if status == Status.PARTIAL else State.FAILED
        if row["error_type"] != LINK_EXPIRED:
            why = f"{why}; {expired}"
        return state, why, _NEWER_LISTING
    remedy = _remedy(row, another, terms)
    if status == Status.PARTIAL:
        return State.PARTIAL, why, remedy
    # A damaged archive is as damaged tomorrow: the try that it has left excuses nothing.
    is_waiting = another.is_due and another.is_cause_passing
    return (State.WAITING if is_waiting else State.FAILED), why, remedy


def _failed(row: Row) -> str:
    """Returns what the catalog says went wrong."""
    # The rows are anybody's who can write to the catalog.
    message = (row["error_message"] or "").removeprefix(f"{row['archive_uri']}: ")
    told = without_secrets(": ".join(filter(None, (row["error_type"], message))))
    if row["status"] == Status.PARTIAL:
        return f"something is missing: {told}" if told else "something is missing"
    times = "once" if (tried := int(row["attempts"] or 1)) == 1 else f"{tried} times"
    return f"failed {times}: {told}" if told else f"failed {times}"


def _remedy(row: Row, another: NextTry, terms: Terms) -> str:
    if another.is_due:
        most = max(another.attempt, terms.max_attempts)
        tries = f"the next run over this listing tries again (try {another.attempt} of {most})"
        if another.is_cause_passing:
            return tries
        return f"look at the archive; {tries}"
    if is_older(row["callpress_version"]):
        return "the next run over this listing tries it once, as an older version left it"
    return "no run tries it again: see the table failures; --overwrite presses it anew"
