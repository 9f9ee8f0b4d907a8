"""What a run from a listing tells at its end: what became of the recordings that it is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transforms.filters import Filters
from transforms.proof.listing import ListedRecording, listing_of
from transforms.proof.reconcile import Reconciled, State, Terms, count, reconcile
from transforms.proof.telling import not_pressed, plain

MOST_TOLD = 100


def is_told(filters: Filters) -> bool:
    """Whether a run tells it: one about some calls or people records no archive as done."""
    return not filters.is_about_a_part


def reconcile_at_end(
    recordings: Iterable[ListedRecording],
    catalog_uri: str,
    terms: Terms,
    filters: Filters,
    since_unix_ns: int | None,
) -> dict[str, Any]:
    """Returns what became of recordings, in plain values: the counts, and the first that are not
    pressed.

    Args:
      recordings: what the run's manifests name.
      catalog_uri: with the tables that the run has published.
      terms: from when on what is not pressed is missing.
      filters, since_unix_ns: what the run is about. Of what it passes over nothing is told.

    Raises:
      StorageError: the catalog cannot be read.
    """
    found = reconcile(listing_of(recordings), catalog_uri, terms)
    about = [each for each in found if _is_about(each, filters, since_unix_ns)]
    return {
        "counts": count(about),
        "notes": list(found.notes),
        "not_pressed": [plain(each, terms) for each in not_pressed(about)[:MOST_TOLD]],
    }


def _is_about(each: Reconciled, filters: Filters, since_unix_ns: int | None) -> bool:
    ended = each.ended_unix_ns
    if since_unix_ns is not None and ended is not None and ended <= since_unix_ns:
        return each.state is State.WAITING  # what waits is pressed whatever its age
    if each.state is not State.ABSENT:
        return True
    # Left out by what only the archive tells, it has no row either.
    is_of_any_age = since_unix_ns is None or ended is not None
    is_of_any_call = not filters.excluded_calls or bool(each.call_cid)
    return is_of_any_age and is_of_any_call
