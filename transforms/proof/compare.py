"""What has changed in a catalog since a receipt was made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transforms.catalog.schema import ADDED_TABLES
from transforms.media.rfc3339 import parse_time
from transforms.proof.accounts import Accounts, told
from transforms.proof.receipt import Receipt

MOST_LINES = 100
"""Files of one date that are named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is not as the receipt has it."""

    where: str
    """A URI, a date, or the name of a figure."""
    what: str


def accounts_for(receipt: Receipt) -> Accounts:
    """Returns accounts that tell apart what a receipt does not have, to be taken of the catalog of
    today.
    """
    listed = receipt.listing.named if receipt.listing else []
    return Accounts(
        wanted=frozenset(
            [archive.archive_uri for archive in receipt.archives.named]
            + [entry.uri for entry in listed]
        ),
        since_unix_us={
            day.call_date: (parse_time(day.newest_row_at) or 0) // 1_000
            for day in receipt.files.dates
        },
    )


def changes(receipt: Receipt, now: Mapping[str, Any], accounts: Accounts) -> Iterator[Change]:
    """Yields what has changed, files first.

    A run that had nothing to do leaves a row in `runs`, and who is told of files that are there
    leaves some in `notices`: that alone is no change.

    Args:
      receipt: of then.
      now: the content of a receipt that is made now.
      accounts: `accounts_for` it, of the catalog as it is now.
    """
    yield from _files(receipt, accounts)
    yield from _archives(receipt, accounts)
    then = receipt.model_dump()
    for part, names in (
        ("archives", ("ok", "empty", "partial", "failed", "waiting")),
        ("packets", ("records", "in_no_file", "unaccounted")),
        ("seconds", ("claimed_ms", "found_ms", "missing_ms", "unaccounted_ms")),
        ("places", ("segments", "largest_error_us", "typical_error_us")),
    ):
        for name in names:
            yield from _figure(f"{part}.{name}", then[part][name], now[part][name])
    yield from _counts("packets.fates", then["packets"]["fates"], now["packets"]["fates"])
    yield from _counts("not_known", then["not_known"], now["not_known"])
    grown = {
        table: then["rows"].get(table, 0)
        for table in ("runs", *ADDED_TABLES)
        if now["rows"].get(table, 0) >= then["rows"].get(table, 0)
    }
    yield from _counts("rows", then["rows"], {**now["rows"], **grown})
    known = {(each["uri"], each["what"]) for each in then["faults"]["named"]}
    for fault in now["faults"]["named"]:
        if (fault["uri"], fault["what"]) not in known:
            yield Change(where=fault["uri"], what=fault["what"])


def _files(receipt: Receipt, accounts: Accounts) -> Iterator[Change]:
    """Yields the dates whose files are others, and those of them that are known to be."""
    now = {day.call_date: day for day in accounts.files}
    then = {day.call_date: day for day in receipt.files.dates}
    for date in sorted(then.keys() | now.keys()):
        if date not in now:
            yield Change(where=date, what=f"all of its {then[date].files} files are gone")
        elif date not in then:
            yield Change(where=date, what=f"has {now[date].count} files, it had none")
        elif now[date].sha256 != then[date].sha256:
            newer = accounts.newer_counts[date]
            left = then[date].files - (now[date].count - newer)
            figures = f"has {now[date].count} files, it had {then[date].files}"
            if newer == 0 and left == 0:
                what = f"{figures}; a row of them was changed in place"
            else:
                what = f"{figures}: {max(0, left)} are gone or replaced, {newer} are new"
            yield Change(where=date, what=what)
            named = accounts.newer.get(date, [])[:MOST_LINES]
            for uri in named:
                yield Change(where=uri, what="its row was made since")
            if newer > len(named):
                yield Change(where=date, what=f"{newer - len(named)} more rows were made since")


def _archives(receipt: Receipt, accounts: Accounts) -> Iterator[Change]:
    """Yields archives that were not whole and are something else now."""
    for archive in receipt.archives.named:
        now = accounts.statuses.get(archive.archive_uri)
        if now is None:
            yield Change(
                where=archive.archive_uri, what=f"was {archive.status}, has no row any more"
            )
        elif now != archive.status:
            yield Change(where=archive.archive_uri, what=f"was {archive.status}, is {now}")
    known = {archive.archive_uri for archive in receipt.archives.named}
    for entry in receipt.listing.named if receipt.listing else ():
        now = accounts.statuses.get(entry.uri)
        if entry.state == "absent" and now is not None and entry.uri not in known:
            known.add(entry.uri)
            yield Change(where=entry.uri, what=f"was absent, is {now}")
    for named in accounts.named:
        if (uri := told(named.archive_uri)) not in known:
            yield Change(where=uri, what=f"is {named.status}, was whole or not there")


def _counts(what: str, then: Mapping[str, int], now: Mapping[str, int]) -> Iterator[Change]:
    for name in sorted(then.keys() | now.keys()):
        yield from _figure(f"{what}.{name}", then.get(name, 0), now.get(name, 0))


def _figure(name: str, then: int, now: int) -> Iterator[Change]:
    if then != now:
        yield Change(where=name, what=f"was {then:,}, is {now:,}")
