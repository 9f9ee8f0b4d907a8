"""Reconcile: each recording of a listing is what it is, and nothing else is missing."""

from __future__ import annotations

from pathlib import Path

from tests.support.listings import (
    TERMS,
    MadeUpRows,
    listing_in,
    make_world,
    write_archives,
)
from transforms.proof.reconcile import reconcile, reconcile_rows

TRIALS = 500
ON_DISK = 20


def test_random_nights_name_exactly_what_was_withheld_or_broken(tmp_path: Path) -> None:
    seen = set()
    for seed in range(TRIALS):
        world, catalog = make_world(seed), tmp_path / str(seed)
        listing = listing_in(tmp_path / "listing.json", world.recordings)
        if seed < ON_DISK:
            write_archives(catalog, world.rows, world.bits)
            reconciled = reconcile(listing, str(catalog), TERMS)
        else:
            rows = MadeUpRows(row for _, row in world.rows)
            reconciled = reconcile_rows(listing, rows, TERMS)

        found = {each.uri: (each.state, each.is_missing, each.matched_by) for each in reconciled}

        assert found == world.truth, f"world {seed}"
        assert listing.repeated == len(world.recordings) - len(world.truth)
        seen |= set(found.values())
    assert len(seen) == 11
