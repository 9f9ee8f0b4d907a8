"""Makes a receipt of what a catalog adds up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from transforms.elements import Status
from transforms.media.text import printable, utf8_text
from transforms.proof.accounts import MOST_NAMED, Accounts, Fault, told, total_sha256
from transforms.proof.listing import Listing
from transforms.proof.receipt import (
    FORMAT,
    MOST_WHOLE,
    VERSION,
    Receipt,
    ReceiptError,
    sha256_of,
)
from transforms.proof.reconcile import Reconciliation, count
from transforms.proof.telling import not_pressed
from transforms.proof.verdict import is_proven, sentence_of

_NOTHING = "0" * 64


@dataclass(slots=True, kw_only=True)
class Faults:
    """What does not agree, as it is found."""

    count: int = 0
    named: list[Fault] = field(default_factory=list)
    """`MOST_NAMED` at most."""

    def add(self, uri: str, what: str) -> None:
        """Takes one in."""
        self.count += 1
        if len(self.named) < MOST_NAMED:
            self.named.append(Fault(uri=told(uri), what=told(what)))

    def take_lacking(self, accounts: Accounts) -> None:
        """Takes in the segments that are neither found nor told as missing."""
        self.count += accounts.lacking_count
        self.named += accounts.lacking[: MOST_NAMED - len(self.named)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Of what a receipt is, and how it came about."""

    catalog: str
    callpress_version: str
    made_unix_ns: int
    hashed: bool
    run_at_work: str | None


def make_receipt(
    circumstances: Circumstances,
    accounts: Accounts,
    faults: Faults,
    listing: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns a receipt without a signature.

    Args:
      circumstances: of what.
      accounts: of all shards of the catalog.
      faults: of its tables and files.
      listing: the content of `ReceivedListing`, None without a listing.

    Raises:
      ReceiptError: a sum is larger than readers of JSON can have it.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "callpress_version": circumstances.callpress_version,
        "made_at": _moment(circumstances.made_unix_ns // 1_000),
        "catalog": printable(utf8_text(circumstances.catalog)),
        "sentence": "",
        "proven": False,
        "run_at_work": circumstances.run_at_work and told(circumstances.run_at_work),
        "listing": listing,
        "rows": dict(accounts.rows),
        "archives": {
            **{str(status): accounts.archives[status] for status in Status},
            "named": _plain(accounts.named),
        },
        "files": _files(accounts, hashed=circumstances.hashed),
        "packets": {
            "records": accounts.records,
            "fates": {str(fate): count for fate, count in accounts.fates.items()},
            "in_no_file": accounts.audio_not_in_files,
            "unaccounted": accounts.unaccounted_records,
        },
        "seconds": {
            "claimed_ms": accounts.claimed_ms,
            "found_ms": accounts.found_ms,
            "missing_ms": accounts.missing_ms,
            "unaccounted_ms": accounts.unaccounted_ms,
            "segments_without_claim": accounts.segments_without_claim,
        },
        "places": {
            "segments": accounts.segments,
            "largest_error_us": accounts.largest_error_us,
            "typical_error_us": accounts.typical_error_us,
        },
        "faults": {"count": faults.count, "named": _plain(faults.named)},
        "not_known": dict(accounts.not_known),
        "sha256": _NOTHING,
        "signature": None,
    }
    try:
        receipt = Receipt.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ReceiptError(
            f"{where} of the catalog: {error.errors()[0]['input']}, expected a sum from 0 to "
            f"{MOST_WHOLE:,}: rows of it cannot be right"
        ) from None
    content["proven"] = is_proven(receipt)
    content["sentence"] = sentence_of(receipt)
    content["sha256"] = sha256_of(content)
    return content


def received(listing: Listing, found: Reconciliation) -> dict[str, Any]:
    """Returns what a receipt says of a listing. Args: found: what became of its recordings."""
    return {
        "sha256": listing.sha256,
        "listed": len(listing),
        **count(found),
        "not_readable": len(listing.problems),
        "named": [
            {
                "uri": told(each.uri),
                "call_cid": told(each.call_cid),
                "call_session_id": told(each.call_session_id),
                "state": str(each.state),
                "why": told(each.why),
                "is_missing": each.is_missing,
            }
            for each in not_pressed(found)[:MOST_NAMED]
        ],
    }


def _files(accounts: Accounts, *, hashed: bool) -> dict[str, Any]:
    return {
        "count": sum(day.count for day in accounts.files),
        "size_bytes": sum(day.size_bytes for day in accounts.files),
        "sha256": total_sha256((day.call_date, day.sha256) for day in accounts.files),
        "hashed": hashed,
        "dates": [
            {
                "call_date": day.call_date,
                "files": day.count,
                "size_bytes": day.size_bytes,
                "sha256": day.sha256,
                "newest_row_at": _moment(day.newest_unix_us),
            }
            for day in accounts.files
        ],
    }


def _plain(named: Sequence[Any]) -> list[dict[str, Any]]:
    return [asdict(each) for each in named]


def _moment(unix_us: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=unix_us)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
