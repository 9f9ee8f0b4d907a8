"""Listings: their recordings, each once, and what of them is none."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from tests.support.listings import DAY_NS, NOW_NS, listing_in, recording_of_vendor
from transforms.proof.listing import Listing, read_listing, recording_of
from transforms.sources.manifests.entry import ManifestEntry
from transforms.sources.manifests.reading import ManifestSource

URI = "https://vendor.test/raw/a.tar.gz"


def _read(*paths: Path) -> Listing:
    return read_listing([ManifestSource(where=str(path), shown=path.name) for path in paths])


def test_recording_that_is_listed_again_has_the_newest_link_and_all_that_is_said(
    tmp_path: Path,
) -> None:
    old = recording_of_vendor(URI, "s", NOW_NS, is_expired=True)
    new = recording_of_vendor(URI)

    for number, both in enumerate(([old, new], [new, old])):
        listing = listing_in(tmp_path / f"{number}.json", both)
        (found,) = listing

        assert (found.call_session_id, found.ended_unix_ns) == ("s", NOW_NS)
        assert found.expires_unix_ns is not None
        assert found.expires_unix_ns > NOW_NS
        assert (len(listing), listing.repeated) == (1, 1)


def test_location_of_two_call_sessions_is_a_problem(tmp_path: Path) -> None:
    """The query of a link is no name: what it tells apart is one recording for a run."""
    both = [recording_of_vendor(URI, session) for session in ("s", "t", "")]

    listing = listing_in(tmp_path / "listing.json", both)

    (problem,) = listing.problems
    assert f"{URI} is listed for the call sessions s and t" in problem
    assert "PLANTEDSIGNATURE" not in problem


def test_digest_is_of_the_recordings_and_of_no_signature(tmp_path: Path) -> None:
    """In whatever order, and however often, they are listed."""
    a, b = (recording_of_vendor(f"https://vendor.test/{name}", "s") for name in ("ä", "b"))
    newer = {**a, "url": a["url"].replace("PLANTEDSIGNATURE", "ANOTHER")}
    lines = b'["https://vendor.test/b","s"]\n["https://vendor.test/\xc3\xa4","s"]\n'

    one = listing_in(tmp_path / "one.json", [a, b])
    two = listing_in(tmp_path / "two.json", [b, newer, a])

    assert one.sha256 == two.sha256 == hashlib.sha256(lines).hexdigest()
    assert "SIGNATURE" not in repr(one)


def test_manifest_that_cannot_be_read_is_a_problem_among_others(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("/raw/a\nnothing\n")

    listing = _read(tmp_path / "none", tmp_path / "good")

    assert [each.uri for each in listing] == ["/raw/a"]
    none, entry = listing.problems
    assert f"{tmp_path}/none" in none
    assert entry.startswith(f"{tmp_path}/good: line 2: ")
    assert listing.counts == {
        "listed": 1, "repeated": 0, "not_readable": 2, "passed_over_composite": 0,
        "passed_over_individual": 0, "passed_over_other_event": 0,
    }  # fmt: skip


def test_end_is_that_of_the_recording_or_of_its_event_never_of_the_question() -> None:
    now = time.time_ns()

    def ended(**fields: Any) -> int | None:
        return recording_of(ManifestEntry(uri="/a", **fields), now).ended_unix_ns

    assert ended(ended_unix_ns=5, issued_unix_ns=7) == 5
    assert ended(issued_unix_ns=now - DAY_NS) == now - DAY_NS
    assert ended(issued_unix_ns=now + 1) is None
    assert ended() is None
