"""`callpress reconcile`: which recordings of a listing are missing in a catalog. Writes nothing.

callpress reconcile --manifest listing.json --catalog ./pressed/catalog
callpress reconcile --manifest stream:since=36h --config my.toml \
    --catalog gs://bucket/pressed/catalog --json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines import listings
from pipelines.catalog_commands import ReconcileArguments
from pipelines.verify import run_at_work, tables_of
from transforms.media.settings import PressSettings
from transforms.media.text import printable, printable_json
from transforms.media.wall_time import spell_time
from transforms.proof.listing import Listing
from transforms.proof.reconcile import Reconciliation, count
from transforms.proof.reconcile import reconcile as compare
from transforms.proof.telling import plain, sentence
from transforms.sources.manifests.entry import LeftOut
from transforms.storage import objects, uris


def reconcile(arguments: ReconcileArguments, settings: PressSettings) -> int:
    """Tells what became of each recording of a listing, a line for each that is not pressed, those
    that are missing first; returns the exit status, 1 when any is, or when not all of the listing
    can be read.

    Raises:
      ConfigError: a manifest is not there, or of no shape that is read.
      NoCatalogError: there is no catalog.
      CallpressError: the catalog or a manifest cannot be read.
    """
    catalog = uris.absolute(arguments.catalog.rstrip("/"))
    objects.find_credentials((catalog,))
    listing = listings.read(arguments.listing)
    tables_of(catalog)
    found = compare(listing, catalog, listings.terms_of(arguments.listing, settings))
    at_work = run_at_work(catalog)
    counts = count(found)
    status = 1 if counts["missing"] or listing.problems else 0
    if at_work is not None:
        line = f"callpress: warning: {at_work} is at work: what it has not published is not counted"
        print(printable(line), file=sys.stderr)
    if arguments.as_json:
        names = listings.names_of(arguments.listing)
        told = _as_json(status, catalog, names, listing, found, counts, at_work)
        print(printable_json(json.dumps(told, indent=2, ensure_ascii=False)))
        return status
    _print(listing, found, counts)
    return status


def _as_json(
    status: int,
    catalog: str,
    names: Sequence[str],
    listing: Listing,
    found: Reconciliation,
    counts: Mapping[str, int],
    at_work: str | None,
) -> dict[str, Any]:
    """Returns what docs/schemas/reconcile.schema.json describes."""
    terms = found.terms
    return {
        "exit_status": status,
        "catalog": catalog,
        "listing": {
            "names": list(names),
            "sha256": listing.sha256,
            "counts": {
                **{name: listing.counts[name] for name in ("listed", "repeated", "not_readable")},
                "passed_over": {str(why): listing.passed_over.get(why, 0) for why in LeftOut},
            },
            "problems": list(listing.problems),
        },
        "terms": {
            "told_at": spell_time(terms.now_unix_ns),
            "grace_seconds": terms.grace_ns // 10**9,
            "kept_seconds": terms.kept_ns // 10**9,
            "soon_seconds": terms.soon_ns // 10**9,
        },
        "counts": dict(counts),
        "run_at_work": at_work,
        "notes": list(found.notes),
        "recordings": [plain(each, terms) for each in found],
    }


def _print(listing: Listing, found: Reconciliation, counts: Mapping[str, int]) -> None:
    listings.tell(listing, found)
    not_read = len(listing.problems)
    what = "1 entry or listing" if not_read == 1 else f"{not_read} entries or listings"
    unknown = f"; {what} could not be read: what else is listed is not known" if not_read else ""
    print(f"callpress: {sentence(counts)}{unknown}")
