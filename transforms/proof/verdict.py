"""What follows from the figures of a receipt: the sentence that people read, whether anything is
proven, and whether the figures agree with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transforms.media.rtp.fates import AUDIO_MISSING
from transforms.proof.accounts import MOST_NAMED, total_sha256
from transforms.proof.receipt import Receipt, sha256_of

WHAT_IS_NOT_KNOWN = {
    "archives": "archives have no status that this version knows",
    "files": "rows of recordings lack the location, the size or the SHA-256 of their file",
    "dumps": "rows of dumps do not count the records of their dump, or not what became of them",
    "tracks": "tracks have no account of their dumps: an earlier version pressed them, and what "
    "came of their packets and seconds is not known",
    "seconds": "rows of dumps do not say what was found or is missing",
    "places": "rows of segments have no bound on the error of their times",
}
"""Behind a count."""


def is_proven(receipt: Receipt) -> bool:
    """Whether listing, tables, files and sums agree, all is known, and nobody was writing."""
    listing = receipt.listing
    return (
        receipt.run_at_work is None
        and not receipt.faults.count
        and not any(receipt.not_known.values())
        and not receipt.packets.unaccounted
        and not receipt.seconds.unaccounted_ms
        and (listing is None or not (listing.missing or listing.not_readable))
    )


def sentence_of(receipt: Receipt) -> str:
    """Returns what a receipt says, in a sentence."""
    parts = [_whole(receipt), _accounted(receipt)]
    if receipt.packets.in_no_file or receipt.seconds.missing_ms:
        parts.append(
            f"{_count(receipt.packets.in_no_file, 'packet')} and "
            f"{_seconds(receipt.seconds.missing_ms)} in no file, and told"
        )
    if receipt.faults.count:
        parts.append(f"{_count(receipt.faults.count, 'fault')} in files and tables")
    elif receipt.files.hashed:
        parts.append("every file by SHA-256")
    else:
        parts.append("every file by its size alone")
    if receipt.places.segments:
        bound = f"{-(-receipt.places.largest_error_us // 100) / 10:,.1f}"
        but = receipt.not_known.get("places", 0)
        of = f"every second but those of {_count(but, 'segment')}" if but else "every second"
        parts.append(f"{of} placed within +/- {bound} ms")
    return ("" if is_proven(receipt) else f"not proven ({_why_not(receipt)}): ") + "; ".join(parts)


def _whole(receipt: Receipt) -> str:
    figures = f"{receipt.whole:,} whole, {receipt.told_by_name:,} named"
    if receipt.listing is not None:
        return f"the vendor lists {receipt.listing.listed:,}; {figures}"
    count = receipt.whole + receipt.told_by_name
    return f"the catalog has {_count(count, 'archive')}; {figures}"


def _accounted(receipt: Receipt) -> str:
    unsaid = sum(receipt.not_known.get(what, 0) for what in ("dumps", "tracks", "seconds"))
    return (
        f"{_count(receipt.packets.unaccounted, 'packet')} and "
        f"{_seconds(receipt.seconds.unaccounted_ms)} unaccounted"
        + (f" but for {_count(unsaid, 'row')} where it is not known" if unsaid else "")
    )


def _why_not(receipt: Receipt) -> str:
    """Returns why nothing is proven, in words."""
    listing, reasons = receipt.listing, []
    if receipt.run_at_work is not None:
        reasons.append("a run was at work")
    if listing is not None and listing.missing:
        reasons.append(f"{listing.missing:,} of the listing missing")
    if listing is not None and listing.not_readable:
        reasons.append(f"{listing.not_readable:,} of the listing not readable")
    if receipt.packets.unaccounted or receipt.seconds.unaccounted_ms or receipt.faults.count:
        reasons.append("not all agrees")
    if any(receipt.not_known.values()):
        reasons.append("not all is known")
    return ", ".join(reasons)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _seconds(ms: int) -> str:
    return f"{-(-ms // 100) / 10:,.1f} s"


def disagreements(content: Mapping[str, Any], receipt: Receipt) -> Iterator[str]:
    """Yields where a receipt contradicts itself, as one that was edited by hand does.

    Args:
      content: the receipt as it was read.
      receipt: the same.
    """
    if (found := sha256_of(content)) != receipt.sha256:
        yield f"its content has the SHA-256 {found}, it says {receipt.sha256}"
    if receipt.proven != is_proven(receipt):
        yield f"it says proven: {str(receipt.proven).lower()}, which its figures deny"
    elif receipt.sentence != (sentence := sentence_of(receipt)):
        yield f"its sentence is not what its figures say: {sentence}"
    for what, stated, adds_up_to in _sums(receipt):
        if stated != adds_up_to:
            yield f"{what}: it says {stated}, its parts give {adds_up_to}"


def _sums(receipt: Receipt) -> Iterator[tuple[str, object, object]]:
    files, archives, packets = receipt.files, receipt.archives, receipt.packets
    unknown = receipt.not_known.get
    if listing := receipt.listing:
        states = listing.pressed + listing.partial + listing.failed
        yield "listing.listed", listing.listed, states + listing.waiting + listing.absent
        yield "listing.named", len(listing.named), min(MOST_NAMED, receipt.told_by_name)
    not_whole = archives.partial + archives.failed + archives.waiting
    count = archives.ok + archives.empty + not_whole
    yield "rows.archives", receipt.rows.get("archives"), count + unknown("archives", 0)
    yield "archives.named", len(archives.named), min(MOST_NAMED, not_whole + unknown("archives", 0))
    yield "rows.recordings", receipt.rows.get("recordings"), files.count + unknown("files", 0)
    yield "rows.segments", receipt.rows.get("segments"), receipt.places.segments
    yield "files.count", files.count, sum(day.files for day in files.dates)
    yield "files.size_bytes", files.size_bytes, sum(day.size_bytes for day in files.dates)
    dates = [(day.call_date, day.sha256) for day in files.dates]
    yield "files.sha256", files.sha256, total_sha256(dates)
    yield "files.dates", dates, sorted(dict(dates).items())
    in_no_file = sum(packets.fates.get(fate, 0) for fate in AUDIO_MISSING)
    yield "packets.in_no_file", packets.in_no_file, in_no_file
    if receipt.proven:
        yield "packets.records", packets.records, sum(packets.fates.values())
    yield "faults.named", len(receipt.faults.named), min(MOST_NAMED, receipt.faults.count)
