"""What became of recordings, in words for people and as plain values for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transforms.media.wall_time import spell_time
from transforms.proof.reconcile import DAY_NS, Reconciled, State, Terms

_FAR_NS = 1 << 62


def plain(each: Reconciled, terms: Terms) -> dict[str, Any]:
    """Returns what became of a recording as programs are told it, as in
    docs/schemas/reconcile.schema.json.
    """
    return {
        "uri": each.uri,
        "call_cid": each.call_cid or None,
        "call_session_id": each.call_session_id or None,
        "state": str(each.state),
        "is_missing": each.is_missing,
        "why": each.why or None,
        "remedy": each.remedy or None,
        "archive_uri": each.archive_uri,
        "matched_by": str(each.matched_by) if each.matched_by else None,
        "ended_at": spell_time(each.ended_unix_ns),
        "deleted_at": spell_time(each.deleted_unix_ns),
        "days_left": _days_left(each, terms),
        "copy_uri": each.copy_uri,
    }


def not_pressed(found: Iterable[Reconciled]) -> list[Reconciled]:
    """Returns the recordings that are not pressed: those that are missing first, of them those that
    are deleted first.
    """
    return sorted((each for each in found if each.state is not State.PRESSED), key=_urgency)


def _urgency(each: Reconciled) -> tuple[bool, int, str]:
    deleted = _FAR_NS if each.deleted_unix_ns is None else each.deleted_unix_ns
    return not each.is_missing, deleted, each.uri


def in_words(told: Mapping[str, Any]) -> str:
    """Returns a line on a recording that is not pressed. Args: told: of `plain`."""
    who = ", ".join(
        f"{what} {told[name]}"
        for what, name in (("call", "call_cid"), ("session", "call_session_id"))
        if told[name]
    )
    return (
        f"{'missing, ' if told['is_missing'] else ''}{told['state']}: {told['uri']}"
        f"{who and f' ({who})'}: {told['why']}; {_deletion(told)}; to do: {told['remedy']}"
    )


def _days_left(each: Reconciled, terms: Terms) -> float | None:
    if each.deleted_unix_ns is None:
        return None
    return round((each.deleted_unix_ns - terms.now_unix_ns) / DAY_NS, 2)


def _deletion(told: Mapping[str, Any]) -> str:
    days = told["days_left"]
    copy = f", a copy is {told['copy_uri']}" if told["copy_uri"] else ""
    if days is None:
        return f"when the vendor deletes it is not known{copy}"
    if days < 0:
        return f"the vendor deleted it {-days:.1f} days ago{copy}"
    return f"the vendor deletes it in {days:.1f} days{copy}"


def sentence(counts: Mapping[str, int]) -> str:
    """Returns how many recordings there are of each state, and how many are missing. Args: counts:
    of `reconcile.count`.
    """
    listed = sum(counts[state] for state in State)
    if not listed:
        return "the listing names no recording"
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    missing = counts["missing"]
    verdict = f"{missing} of them missing" if missing else "none is missing"
    return f"{listed} recording{'' if listed == 1 else 's'} listed: {states}; {verdict}"
